"""Cores are counted from what the system says, here a made-up one."""

import os

import pytest

from engine.cores import physical_cores

ALL = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not ALL, reason="affinity and sysfs are Linux")


def topology(folder, siblings):
    for cpu, text in siblings.items():
        path = folder / f"cpu{cpu}" / "topology"
        path.mkdir(parents=True)
        (path / "thread_siblings_list").write_text(f"{text}\n")
    return folder


def test_threads_of_one_core_count_once(tmp_path):
    together = topology(tmp_path / "smt", dict.fromkeys(ALL, "0-99"))
    assert physical_cores(together, tmp_path / "none") == 1
    apart = topology(tmp_path / "single", {cpu: str(cpu) for cpu in ALL})
    assert physical_cores(apart, tmp_path / "none") == len(ALL)


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("?", None)],
)
def test_a_containers_quota_is_a_limit(tmp_path, quota, most):
    apart = topology(tmp_path / "cpus", {cpu: str(cpu) for cpu in ALL})
    (tmp_path / "cpu.max").write_text(quota)
    assert physical_cores(apart, tmp_path / "cpu.max") == (most or len(ALL))


def test_without_a_topology_it_estimates(tmp_path):
    expected = len(ALL) if len(ALL) <= 4 else len(ALL) // 2
    assert physical_cores(tmp_path, tmp_path / "none") == expected


def test_the_process_affinity_is_respected(tmp_path):
    apart = topology(tmp_path / "cpus", {cpu: str(cpu) for cpu in ALL})
    os.sched_setaffinity(0, ALL[:1])
    try:
        assert physical_cores(apart, tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, ALL)
