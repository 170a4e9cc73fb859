"""Cores are counted from what the system says, here a made-up one."""

import os

import pytest

from engine.cgroups import ControlGroups
from engine.cores import core_limit, physical_cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="affinity and sysfs are Linux"
)


def topology(folder, siblings):
    for cpu, text in siblings.items():
        path = folder / f"cpu{cpu}" / "topology"
        path.mkdir(parents=True)
        (path / "thread_siblings_list").write_text(f"{text}\n")
    return folder


def nothing(tmp_path):
    return ControlGroups(membership=tmp_path / "none", root=tmp_path / "none")


def quota(tmp_path, text):
    (tmp_path / "self").write_text("0::/")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "cpu.max").write_text(text)
    return ControlGroups(membership=tmp_path / "self", root=tmp_path / "groups")


def test_threads_of_one_core_count_once(cores, tmp_path):
    together = topology(tmp_path / "smt", dict.fromkeys(cores, "0-99"))
    assert physical_cores(together, nothing(tmp_path)) == 1
    apart = topology(tmp_path / "single", {cpu: str(cpu) for cpu in cores})
    assert physical_cores(apart, nothing(tmp_path)) == len(cores)
    assert core_limit(apart, nothing(tmp_path)) == 0


@pytest.mark.parametrize(
    ("text", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("?", None)],
)
def test_a_containers_quota_is_a_limit(cores, tmp_path, text, most):
    apart = topology(tmp_path / "cpus", {cpu: str(cpu) for cpu in cores})
    groups = quota(tmp_path, text)
    assert physical_cores(apart, groups) == (most or len(cores))
    assert core_limit(apart, groups) == (1 if most and len(cores) > 1 else 0)


def test_a_containers_set_of_processors_is_a_limit(cores, tmp_path):
    apart = topology(tmp_path / "cpus", {cpu: str(cpu) for cpu in cores})
    groups = quota(tmp_path, "max 100000")
    (tmp_path / "groups" / "cpuset.cpus.effective").write_text(f"{cores[-1]}\n")
    assert physical_cores(apart, groups) == 1
    (tmp_path / "groups" / "cpuset.cpus.effective").write_text("7000-7001\n")  # none of ours
    assert physical_cores(apart, groups) == len(cores)


def test_without_a_topology_it_estimates(cores, tmp_path):
    expected = len(cores) if len(cores) <= 4 else len(cores) // 2
    assert physical_cores(tmp_path, nothing(tmp_path)) == expected


def test_the_process_affinity_is_respected(cores, tmp_path):
    apart = topology(tmp_path / "cpus", {cpu: str(cpu) for cpu in cores})
    os.sched_setaffinity(0, cores[:1])
    assert physical_cores(apart, nothing(tmp_path)) == 1
