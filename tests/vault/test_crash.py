"""Dying, racing and full disks: what was acknowledged is there, and the rest is whole or absent."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import vault
from tests.vault.file_keystore import FileKeyStore
from tests.vault.worker import check, draft, make, open_vault
from vault.errors import StorageError

ROOT = Path(__file__).parents[2]


def start(*arguments, **options):
    command = [sys.executable, "-m", "tests.vault.worker", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


def run(*arguments, **options):
    process = start(*arguments, stderr=subprocess.PIPE, **options)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def test_twenty_processes_make_one_vault_and_one_key(folder):
    path, keys = folder / "v", folder / "keys"
    processes = [start("create", path, keys) for _ in range(20)]
    answers = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert answers == ["exists"] * 19 + ["made"]
    assert len(list(keys.glob("*.kek.*"))) == 1
    assert check(path, keys) == {}


def test_two_processes_add_at_once(folder):
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    processes = [start("add", path, keys, name, 25) for name in ("a", "b")]
    acknowledged = {line for p in processes for line in p.communicate(timeout=120)[0].split()}
    assert len(acknowledged) == 50
    found = check(path, keys)
    assert set(found) == acknowledged
    assert sorted(record.position for record in found.values()) == list(range(50))


def kill_loop(folder, times, how=signal.SIGKILL):
    """Kill a process that changes a vault, again and again (tests/vault/kills.py)."""
    command = [sys.executable, "-m", "tests.vault.kills", folder, times, int(how)]
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == times


def test_purges_saves_and_scans_at_once(folder):
    """Two that purge, one that saves, one that reads: nothing is lost, hurt or brought back."""
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    with open_vault(path, keys) as opened:
        for _ in range(4):
            opened.add([draft("old")] * 16)
    jobs = [("purge", 10), ("purge", 10), ("add", "new", 20), ("scan", 15)]
    processes = [start(job[0], path, keys, *job[1:]) for job in jobs]
    said = [process.communicate(timeout=240)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    purged, added = set(said[0]) | set(said[1]), set(said[2])
    found = set(check(path, keys))
    assert not purged & found
    assert added - purged <= found
    assert len(found) == 64 + 20 - len(purged)
    assert len(list(keys.glob("*.kek.*"))) == 1


def test_a_hundred_kills_lose_nothing_that_was_acknowledged(folder):
    kill_loop(folder, 100)


def test_ten_interrupts_lose_nothing_either(folder):
    """Ctrl-C is an exception anywhere, right after COMMIT too: then the files must stay."""
    kill_loop(folder, 10, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("loop", range(40))
def test_ten_thousand_kills_lose_nothing_that_was_acknowledged(folder, loop):
    """Forty vaults, each of which outlives 250 dead programs."""
    kill_loop(folder, 250)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have a C compiler for the preloaded library")
        pytest.skip("needs a C compiler and Linux to trap single system calls")
    library = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("mode", ["before", "after", "refuse"])
@pytest.mark.parametrize("what", ["add", "create", "delete", "purge", "rotate"])
def test_every_single_call_may_be_the_last(folder, shim, what, mode):
    environment = os.environ | {"LD_PRELOAD": str(shim)}
    out = run("each-call", folder / "v", folder / "keys", mode, what, env=environment)
    word, calls, *endings = out.splitlines()[-1].split()
    assert word == "calls"
    assert int(calls) >= 20
    # Each call was trapped: the process died there, or the refusal was noticed (or did not matter).
    assert f"died={calls}" in endings if mode != "refuse" else any("refused" in e for e in endings)


def test_everything_is_on_the_medium_before_it_is_acknowledged(folder, shim):
    """The order of calls is the protocol: a killed process loses no cache, a power cut does."""
    environment = os.environ | {"LD_PRELOAD": str(shim)}
    calls = run("log-calls", folder / "v", folder / "keys", env=environment).strip()
    # The sealed file: written, flushed, renamed, both folders flushed...
    assert [letter for letter in calls if letter in "psrS"] == list("psrSS")
    # ...before SQLite flushes anything: its journal, with its folder, before the index is written;
    # the index before the journal goes; and its going (synchronous=EXTRA) at the end.
    index = calls.translate(str.maketrans("", "", "psrS"))
    assert re.fullmatch(r"w+f[wf]*F?[wf]*w+fuF", index), calls
    assert calls.rindex("S") < calls.index("f")


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 3 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_does_not_stop_a_deletion_half_way(small_disk, tmp_path):
    path, keys = small_disk / "v", tmp_path / "keys"
    make(path, keys)
    with open_vault(path, keys) as opened:
        ids = [record.id for record in opened.add([draft("x" * 40)] * 16)]
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(4096)):
                pass
        for act in (lambda: opened.delete(ids[:8]), lambda: opened.purge(ids[8:12])):
            with suppress(StorageError):
                act()
    left = set(check(path, keys))
    assert left >= set(ids[12:])
    assert len(left & set(ids[:8])) in {0, 8}
    assert len(left & set(ids[8:12])) in {0, 4}
    filler.unlink()
    with open_vault(path, keys) as opened:
        assert opened.purge(sorted(left - set(ids[12:]))).shredded
    assert set(check(path, keys)) == set(ids[12:])
    assert sum(1 for _ in (path / "blobs").glob("*/*")) == 4
    assert len(list(keys.glob("*.kek.*"))) == 1


def test_a_full_disk_refuses_and_loses_nothing(small_disk, tmp_path):
    path, keys = small_disk / "v", tmp_path / "keys"
    make(path, keys)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    acknowledged = []
    with open_vault(path, keys) as opened:
        with pytest.raises(StorageError) as caught:  # noqa: PT012 - the loop is the statement
            while True:
                acknowledged += [record.id for record in opened.add([draft("x" * 40)] * 3)]
        assert "full" in str(caught.value) or "space" in str(caught.value)
        assert len(acknowledged) > 20
        assert {record.id for record in opened.list()} == set(acknowledged)
        for size in (1, 16):  # small saves fail or succeed whole, too
            try:
                acknowledged += [r.id for r in opened.add([draft("y")] * size)]
            except StorageError:
                continue
    assert set(check(path, keys)) == set(acknowledged)
    files = sum(1 for _ in (path / "blobs").glob("*/*"))
    assert files == len(acknowledged)
    filler.unlink()
    with open_vault(path, keys) as opened:
        acknowledged += [record.id for record in opened.add([draft("z")])]
    assert set(check(path, keys)) == set(acknowledged)


def test_a_hot_journal_is_rolled_back_at_open(folder):
    """A writer that died inside its transaction leaves a journal; opening undoes its pages."""
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    with open_vault(path, keys) as opened:
        opened.add([draft("kept")])
    program = (
        "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=1'); c.execute('PRAGMA cache_spill=1');"
        "c.execute('BEGIN IMMEDIATE'); c.execute('UPDATE record SET meta = zeroblob(90000)');"
        "c.execute('UPDATE page SET sealed = zeroblob(200000)'); os.kill(os.getpid(), 9)"
    )
    index = path / "index.sqlite"
    subprocess.run([sys.executable, "-c", program, str(index)], check=False)
    assert (path / "index.sqlite-journal").stat().st_size > 0
    assert [record.metadata["name"] for record in check(path, keys).values()] == ["kept"]
    assert not (path / "index.sqlite-journal").exists()


def test_a_dead_writers_incoming_file_is_swept_only_when_nobody_writes(folder):
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    left = path / "incoming" / ("0" * 32)
    left.write_bytes(b"half a file")
    with open_vault(path, keys) as opened, opened._s.shared():
        assert not left.exists()
        left.write_bytes(b"a living writer's")
        with open_vault(path, keys):
            assert left.exists()
    assert check(path, keys) == {}
    unlock = vault.KeyStoreUnlock(FileKeyStore(keys))
    vault.open_vault(path, unlock).close()
    assert not left.exists()
