"""Control groups of both versions, read from trees that are written here."""

import math

import pytest

from engine.cgroups import ControlGroups

V2, HYBRID = "0::/user.slice/app.scope\n", "0::/\n3:cpuset:/pod/one\n2:cpu,cpuacct:/pod/one\n"


def tree(tmp_path, membership, files):
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return ControlGroups(membership=tmp_path / "self", root=tmp_path / "fs")


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),  # a container with its own view
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        (V2, {"user.slice/app.scope/cpu.max": "200000 100000"}, 2.0),
        # a limit further up binds as well, and the lowest one wins
        (
            V2,
            {"user.slice/cpu.max": "50000 100000", "user.slice/app.scope/cpu.max": "200000 100000"},
            0.5,
        ),
        (
            V2,
            {"user.slice/cpu.max": "max 100000", "user.slice/app.scope/cpu.max": "20000 10000"},
            2.0,
        ),
        # other groups' limits are not ours
        (V2, {"other.slice/cpu.max": "10000 100000", "user.slice/x/cpu.max": "1 100000"}, math.inf),
        # the host's path in a container that sees its own mount
        ("0::/docker/abc\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../../x\n", {"cpu.max": "300000 100000"}, 3.0),
        # version 1, mounted by all its controllers or by one
        (
            HYBRID,
            {
                "cpu,cpuacct/pod/one/cpu.cfs_quota_us": "120000",
                "cpu,cpuacct/pod/one/cpu.cfs_period_us": "40000",
            },
            3.0,
        ),
        (
            HYBRID,
            {"cpu/pod/cpu.cfs_quota_us": "50000", "cpu/pod/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (
            HYBRID,
            {"cpu/pod/one/cpu.cfs_quota_us": "-1", "cpu/pod/one/cpu.cfs_period_us": "100000"},
            math.inf,
        ),
        # version 2 beside version 1
        ("0::/a\n1:cpuset:/a\n", {"unified/a/cpu.max": "10000 10000"}, 1.0),
        # nonsense is no limit
        ("0::/\n", {"cpu.max": "100000"}, math.inf),
        ("0::/\n", {"cpu.max": "100000 0"}, math.inf),
        ("0::/\n", {"cpu.max": "100000 100000 100000"}, math.inf),
        ("0::/\n", {"cpu.max": ""}, math.inf),
        ("0::/\n", {"cpu.max": "9" * 70_000}, math.inf),
        ("0::/\n", {"cpu.max": "9" * 9_000 + " 100000"}, math.inf),
        ("what\n::\n", {"cpu.max": "100000 100000"}, 1.0),
        ("", {"cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_the_quota_of_all_groups_around(tmp_path, membership, files, cores):
    assert tree(tmp_path, membership, files).cores() == cores


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/\n", {"cpuset.cpus.effective": "0-3,8"}, {0, 1, 2, 3, 8}),
        (V2, {"user.slice/app.scope/cpuset.cpus.effective": "2"}, {2}),
        (
            V2,
            {"cpuset.cpus.effective": "0-7", "user.slice/app.scope/cpuset.cpus.effective": "2-3"},
            {2, 3},
        ),
        (V2, {"user.slice/app.scope/cpuset.cpus": "", "cpuset.cpus.effective": "0-1"}, {0, 1}),
        (HYBRID, {"cpuset/pod/one/cpuset.cpus": "4,6-7"}, {4, 6, 7}),
        (
            HYBRID,
            {"cpuset/pod/one/cpuset.effective_cpus": "4", "cpuset/pod/one/cpuset.cpus": "0-9"},
            {4},
        ),
        ("0::/\n", {"cpuset.cpus.effective": "a-b"}, set()),
        ("0::/\n", {"cpuset.cpus.effective": "3-1"}, set()),
        ("0::/\n", {"cpuset.cpus.effective": "0-99999999999"}, set(range(8193))),
        ("0::/\n", {}, set()),
    ],
)
def test_the_processors_that_are_left(tmp_path, membership, files, cpus):
    assert tree(tmp_path, membership, files).cpus() == cpus


def test_a_system_without_groups_sets_no_limit(tmp_path):
    nowhere = ControlGroups(membership=tmp_path / "no", root=tmp_path / "no")
    assert (nowhere.cores(), nowhere.cpus()) == (math.inf, frozenset())


def test_this_machine_can_be_read():
    here = ControlGroups()
    assert here.cores() > 0
    assert all(cpu >= 0 for cpu in here.cpus())


@pytest.mark.parametrize(
    ("membership", "files", "room"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, math.inf),
        ("0::/\n", {"memory.max": "1000", "memory.current": "400"}, 600),
        ("0::/\n", {"memory.max": "1000", "memory.current": "1400"}, 0),
        (
            V2,
            {
                "user.slice/memory.max": "900",
                "user.slice/memory.current": "800",
                "user.slice/app.scope/memory.max": "700",
                "user.slice/app.scope/memory.current": "100",
            },
            100,  # the group around it is nearly full
        ),
        (
            "4:memory:/pod\n",
            {
                "memory/pod/memory.limit_in_bytes": "5000",
                "memory/pod/memory.usage_in_bytes": "1000",
            },
            4000,
        ),
        ("0::/\n", {"memory.max": "a lot", "memory.current": "1"}, math.inf),
    ],
)
def test_memory_that_is_left_is_the_least_of_all_groups(tmp_path, membership, files, room):
    assert tree(tmp_path, membership, files).memory() == room


def test_throttled_periods_are_counted(tmp_path):
    files = {"cpu.stat": "usage_usec 7\nnr_throttled 3\nthrottled_usec 9"}
    assert tree(tmp_path, "0::/\n", files).throttled() == 3
