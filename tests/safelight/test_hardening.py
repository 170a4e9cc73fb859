import os
import resource
import subprocess
import sys

from safelight.hardening import swap_warning


def test_core_dumps_are_off_and_files_are_private(tmp_path):
    program = (
        "import os, resource\n"
        "from safelight.hardening import forbid_core_dumps\n"
        "forbid_core_dumps()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "open('made', 'w').close()\n"
    )
    before = resource.getrlimit(resource.RLIMIT_CORE)
    out = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "(0, 0)"
    assert os.stat(tmp_path / "made").st_mode & 0o777 == 0o600  # noqa: PTH116 - the mode is the point
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_memory_is_hidden_from_other_processes_of_the_user():
    program = (
        "import ctypes, os\n"
        "from safelight.hardening import hide_memory\n"
        "prctl = ctypes.CDLL(None).prctl\n"
        "before = prctl(3, 0, 0, 0, 0)\n"
        "hide_memory()\n"
        "print(before, prctl(3, 0, 0, 0, 0), os.stat('/proc/self/mem').st_uid)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["1", "0", "0"]  # PR_GET_DUMPABLE; the file is root's


def test_plain_swap_is_named_and_encrypted_swap_is_not(tmp_path):
    swaps = tmp_path / "swaps"
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    swaps.write_text(head + "/dev/sda2 partition 1 0 -2\n/dev/zram0 partition 1 0 5\n")
    assert "/dev/sda2" in swap_warning(swaps)
    assert "zram0" not in swap_warning(swaps)
    swaps.write_text(head + "/dev/dm-1 partition 1 0 -2\n/dev/mapper/swap partition 1 0 5\n")
    assert swap_warning(swaps) == ""
    assert swap_warning(tmp_path / "absent") == ""
