"""Copying while others write, die and fill the disk: the old copy or the new one, never half."""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vault import test_crash
from tests.vault.conftest import draft
from tests.vault.test_backup import backed_up, files_in, open_copy, pictures
from tests.vault.worker import MODES, open_vault
from tests.vault.worker import make as make_vault
from vault.backup import back_up
from vault.errors import DamagedError, NotFoundError, StorageError, VaultError
from vault.lock import VaultLock
from vault.verify import verify

ROOT = Path(__file__).parents[2]
small_disk = test_crash.small_disk  # the fixture: a file system of 3 MiB
BACK_UP = (
    "import sys; from pathlib import Path; from tests.vault.worker import open_vault;"
    "from vault.backup import back_up; path, keys, target = map(Path, sys.argv[1:]);"
    "opened = open_vault(path, keys); print('ready', flush=True);"
    "back_up(opened._s, target); print('done', flush=True)"
)


# While others use the vault


def test_a_backup_while_another_process_adds_holds_what_was_acknowledged_before(folder):
    path, keys = folder / "v", folder / "keys"
    make_vault(path, keys)
    with open_vault(path, keys) as opened:
        opened.add([draft("first")])
        writer = test_crash.start("add", path, keys, "w", 60)
        acknowledged = {writer.stdout.readline().strip() for _ in range(10)}
        report = back_up(opened._s, folder / "b")
        rest, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        acknowledged |= set(rest.split())
        with open_vault(folder / "b", keys) as copy:
            found = set(pictures(copy))
            assert verify(copy._s, deep=True).problems == ()
        assert 11 <= report.records == len(found)
        again = back_up(opened._s, folder / "b")
    assert again.records == 61
    with open_vault(folder / "b", keys) as copy:
        assert acknowledged <= set(pictures(copy))


def test_records_deleted_during_a_backup_are_left_out(make, folder):
    """Their files are gone when the copy gets to them: another snapshot is taken, without them."""
    place = make()
    with place.open() as opened:
        ids = [opened.add([draft(str(n), bytes(2000))])[0].id for n in range(4)]
        other = place.open()

        def delete_one(stage, _fraction):
            if stage == "copying files" and len(ids) == 4:
                other.delete([ids.pop()])

        report = back_up(opened._s, folder / "b", progress=delete_one)
        other.close()
    assert report.records == 3
    assert files_in(folder / "b") == files_in(place.path)
    with open_copy(place, folder / "b") as copy:
        assert set(pictures(copy)) == set(ids)


def test_a_vault_whose_records_are_always_deleted_is_given_up_on(make, folder):
    place = make()
    with place.open() as opened:
        other = place.open()
        victim = [other.add([draft()])[0].id]

        def churn(stage, fraction):
            if stage == "copying files":
                other.delete(victim)
                victim[0] = other.add([draft()])[0].id

        with pytest.raises(StorageError, match="5 attempts"):
            back_up(opened._s, folder / "b", progress=churn)
        other.close()
        assert not any((folder / "b" / "incoming").iterdir())
        assert back_up(opened._s, folder / "b").complete


def test_a_purge_is_not_kept_waiting_by_a_backup(make, folder):
    """The lock is held for batches: between two of them another process has the vault alone."""
    place = make()
    purged = []
    with place.open() as opened:
        opened.add([draft("a"), draft("b")])
        opened.trash([next(opened.list()).id])
        other = place.open()

        def purge_once(stage, fraction):
            if stage == "copying files" and not purged:
                purged.append(other.purge().epoch)

        report = back_up(opened._s, folder / "b", progress=purge_once)
        other.close()
    assert purged == [2]
    assert report.records == 1
    with open_copy(place, folder / "b") as copy:
        assert copy.status().epoch == 2


def test_the_vault_is_held_while_the_index_is_copied_and_free_between_batches(place, folder):
    free = {}
    lock = VaultLock(place.path / "lock")

    def look(stage, fraction):
        with lock.exclusive_if_free() as alone:
            free.setdefault(stage, set()).add(alone)

    backed_up(place, folder / "b", progress=look)
    lock.close()
    assert free == {"copying the index": {False}, "copying files": {True}}


def test_a_file_that_goes_from_the_target_meanwhile_is_noticed(place, folder):
    backed_up(place, folder / "b")
    with place.open() as opened:
        opened.add([draft("third")])
    index = (folder / "b" / "index.sqlite").read_bytes()

    def disturb(stage, fraction):
        if stage == "copying files":
            for path in (folder / "b" / "blobs").glob("*/*"):
                path.unlink()

    with pytest.raises(StorageError, match="not there"):
        backed_up(place, folder / "b", progress=disturb)
    assert (folder / "b" / "index.sqlite").read_bytes() == index
    assert backed_up(place, folder / "b").complete


def test_two_backups_to_one_folder_wait_for_each_other(place, folder):
    with place.open() as opened, place.open() as other:
        inside = []

        def second(stage, _fraction):
            if stage == "copying files" and not inside:
                inside.append(
                    subprocess.run(
                        ["flock", "--nonblock", folder / "b" / "lock", "true"], check=False
                    ).returncode
                )

        if shutil.which("flock") is None:
            pytest.fail("util-linux has flock")
        back_up(opened._s, folder / "b", progress=second)
        assert inside == [1]
        assert back_up(other._s, folder / "b").copied == 0


# Dying and full disks


def killed_backup(folder, seed, wait):
    path, keys, target = folder / "v", folder / "keys", folder / "b"
    command = [sys.executable, "-c", BACK_UP, *map(str, (path, keys, target))]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    time.sleep(random.Random(seed).uniform(0, wait))  # noqa: S311 - a schedule, no secret
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def each_call(path, keys, target, mode):
    """Back up again and again, dying at (or refusing) the first, second, ... last call.

    Runs in a process of its own, with the library of failing_calls.c preloaded.
    """
    shim, kept = ctypes.CDLL(os.environ["LD_PRELOAD"]), target.with_name("kept")
    make_vault(path, keys)
    with open_vault(path, keys) as opened:
        opened.add([draft("deleted"), draft("stays")])
        back_up(opened._s, kept)
        opened.delete([next(opened.list()).id])
        opened.add([draft("new", b"x" * 9000)])
    with open_vault(path, keys) as opened, open_vault(kept, keys) as copy:
        states = (pictures(copy), pictures(opened))
    endings = {"old": 0, "new": 0}
    for number in range(1, 1000):
        shutil.copytree(kept, target)
        child = os.fork()
        if child == 0:
            os._exit(_armed_backup(path, keys, target, (shim, number, mode)))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in {0, 3, 4, 137}:
            raise AssertionError(f"call {number} ended with {status}")
        with open_vault(target, keys) as copy:
            found = pictures(copy)
        if found not in states or (status in {0, 4} and found != states[1]):
            raise AssertionError(f"neither the old nor the new backup after call {number}")
        endings["old" if found == states[0] else "new"] += 1
        with open_vault(path, keys) as opened:
            back_up(opened._s, target)
        if files_in(target) != files_in(path) or any((target / "incoming").iterdir()):
            raise AssertionError(f"something was left after call {number}")
        shutil.rmtree(target)
        if status == 4:
            print("calls", number - 1, endings["old"], endings["new"])  # noqa: T201
            return


def _armed_backup(path, keys, target, trap):
    shim, number, mode = trap
    with open_vault(path, keys) as opened:
        shim.shim_arm(number, mode)
        refused = False
        try:
            back_up(opened._s, target)
        except VaultError:
            refused = True
        counted = shim.shim_disarm()
        if refused:
            return 3
        return 4 if counted < number else 0


@pytest.mark.parametrize("mode", ["before", "after", "refuse"])
def test_every_single_call_of_a_backup_may_be_the_last(folder, tmp_path, mode):
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have a C compiler for the preloaded library")
        pytest.skip("needs a C compiler and Linux to trap single system calls")
    library = tmp_path / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    program = (
        "import sys; from pathlib import Path; from tests.vault.test_copying import each_call;"
        "each_call(*map(Path, sys.argv[1:4]), int(sys.argv[4]))"
    )
    arguments = [folder / "v", folder / "keys", folder / "b", MODES[mode]]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, calls, old, new = done.stdout.split()
    assert int(calls) >= 20
    assert int(old) >= 5  # the index is renamed somewhere between the first call and the last
    assert int(new) >= 2


def test_whoever_kills_a_backup_finds_the_old_one_or_the_new_one(folder):
    path, keys, target = folder / "v", folder / "keys", folder / "b"
    make_vault(path, keys)
    with open_vault(path, keys) as opened:
        opened.add([draft("0", os.urandom(50_000)) for _ in range(8)])
        back_up(opened._s, target)
        started = time.monotonic()
        opened.add([draft("timing", os.urandom(50_000)) for _ in range(8)])
        back_up(opened._s, target)
        wait = 1.5 * (time.monotonic() - started)
    with open_vault(target, keys) as copy:
        old = pictures(copy)
    for seed in range(20):
        with open_vault(path, keys) as opened:
            opened.delete([next(opened.list()).id])
            opened.add([draft(str(seed), os.urandom(50_000)) for _ in range(8)])
            new = pictures(opened)
        killed_backup(folder, seed, wait)
        with open_vault(target, keys) as copy:
            found = pictures(copy)  # reads every picture that the index names
        assert found in (old, new)
        old = found
    with open_vault(path, keys) as opened:
        assert back_up(opened._s, target).complete
    assert files_in(target) == files_in(path)


def test_a_first_backup_that_was_killed_is_taken_up(place, folder):
    target = folder / "b"
    backed_up(place, target)
    (target / "index.sqlite").rename(target / "incoming" / ("0" * 32))  # just before its rename
    with pytest.raises(DamagedError):
        open_copy(place, target)
    assert backed_up(place, target).copied == 0
    (target / "VAULT").unlink()
    (target / "index.sqlite").unlink()
    with pytest.raises(NotFoundError):
        open_copy(place, target)
    assert backed_up(place, target).copied == 0
    assert not any((target / "incoming").iterdir())
    with open_copy(place, target) as copy:
        assert len(pictures(copy)) == 2


def test_a_journal_in_the_target_is_rolled_back_and_not_inherited(place, folder):
    """SQLite would roll it back onto the new index, and that would be its end."""
    backed_up(place, folder / "b")
    index = folder / "b" / "index.sqlite"
    program = (
        "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=1'); c.execute('PRAGMA cache_spill=1');"
        "c.execute('BEGIN IMMEDIATE'); c.execute('UPDATE record SET meta = zeroblob(90000)');"
        "c.execute('UPDATE page SET sealed = zeroblob(200000)'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(index)], check=False)
    journal = index.with_name("index.sqlite-journal")
    assert journal.stat().st_size > 0
    with place.open() as opened:
        opened.add([draft("third")])
        back_up(opened._s, folder / "b")
    assert not journal.exists()
    with open_copy(place, folder / "b") as copy:
        assert len(pictures(copy)) == 3


def test_a_full_disk_keeps_the_earlier_backup(place, small_disk):
    target = small_disk / "b"
    with place.open() as opened:
        back_up(opened._s, target)
        old = pictures(opened)
        opened.add([draft("too large", os.urandom(500_000)) for _ in range(8)])
        with pytest.raises(StorageError):
            back_up(opened._s, target)
        with open_copy(place, target) as copy:
            assert pictures(copy) == old
            assert verify(copy._s, deep=True).problems == ()
        opened.delete([record.id for record in opened.list() if record.id not in old])
        assert back_up(opened._s, target).complete
