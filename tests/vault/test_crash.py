"""Dying, racing and full disks: what was acknowledged is there, and the rest is whole or absent."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
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


def churn_and_kill(path, keys, seed, acknowledged, how):
    """Let a worker churn, kill it, and add what it had acknowledged to the model.

    The model maps ids to (revision, trashed); what was begun and not acknowledged may be either.
    Returns (act, id) of what was begun and not acknowledged, or None.
    """
    worker = start("churn", path, keys, seed, stderr=subprocess.DEVNULL)
    first = worker.stdout.readline()
    assert first, f"the worker ended with {worker.wait()}"
    time.sleep(random.Random(seed).uniform(0, 0.3))  # noqa: S311 - a schedule, no secret
    worker.send_signal(how)
    worker.wait(timeout=120)
    # Not communicate(): it reads past the lines that readline() has taken into its buffer.
    lines = (first + worker.stdout.read()).splitlines()
    worker.stdout.close()
    open_act = None
    for line in lines:
        match line.split():
            case ["add", *ids] if all(len(i) == 32 for i in ids):
                acknowledged |= dict.fromkeys(ids, (1, False))
            case ["begin", act, record_id]:
                open_act = (act, record_id)
            case [act, record_id, revision]:
                acknowledge(acknowledged, act, record_id, int(revision))
                open_act = None
    return open_act


def acknowledge(model, act, record_id, revision):
    """Change the model as an act that was acknowledged did."""
    if act == "delete":
        del model[record_id]
    elif act == "purge":
        for each in [each for each, (_, trashed) in model.items() if trashed]:
            del model[each]
    elif act in {"edit", "trash", "untrash"}:
        trashed = model[record_id][1] if act == "edit" else act == "trash"
        model[record_id] = (revision, trashed)


def compare(model, found, open_act):
    """Raise AssertionError unless the vault holds what was acknowledged; take what it holds."""
    act, changed = open_act or ("", "")
    may_go = {changed} if act == "delete" else set()
    if act == "purge":
        may_go = {each for each, (_, trashed) in model.items() if trashed}
        assert may_go <= set(found) or not may_go & set(found), "half of a purge"
    assert set(model) - set(found) <= may_go
    for record_id, record in found.items():
        is_now = (record.revision, record.trashed is not None)
        if record_id in model and record_id != changed:
            assert is_now == model[record_id]
        elif record_id in model:
            assert is_now[0] - model[record_id][0] in {0, 1}
    model.clear()
    model.update({i: (record.revision, record.trashed is not None) for i, record in found.items()})


def kill_loop(folder, times, how=signal.SIGKILL):
    path, keys = folder / "v", folder / "keys"
    make(path, keys)
    model: dict[str, tuple[int, bool]] = {}
    ever = 0
    for seed in range(times):
        before = set(model)
        open_act = churn_and_kill(path, keys, seed, model, how)
        found = check(path, keys, model)
        compare(model, found, open_act)
        ever += len(set(model) - before)
        files = sum(1 for _ in (path / "blobs").glob("*/*"))
        assert 0 <= files - len(found) <= 16 * (seed + 1)  # orphans of saves that were cut off
        assert len(list(keys.glob("*.kek.*"))) == 1  # no key of an earlier epoch is left
    assert ever > times


def fresh_loops(folder, loops, times):
    for number in range(loops):
        (folder / str(number)).mkdir()
        kill_loop(folder / str(number), times)


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


def test_thirty_kills_lose_nothing_that_was_acknowledged(folder):
    kill_loop(folder, 30)


def test_ten_interrupts_lose_nothing_either(folder):
    """Ctrl-C is an exception anywhere, right after COMMIT too: then the files must stay."""
    kill_loop(folder, 10, signal.SIGINT)


@pytest.mark.slow
def test_a_thousand_kills_lose_nothing_that_was_acknowledged(folder):
    fresh_loops(folder, 25, 40)


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
    # The sealed file: written, flushed, renamed, both folders flushed.
    assert calls.startswith("wfrFF")
    # SQLite: the journal is flushed, with its folder, before the index is written; the index is
    # flushed before the journal goes; and its going is flushed (synchronous=EXTRA) at the end.
    assert re.fullmatch(r"w+f[wf]*F?[wf]*w+fuF", calls.removeprefix("wfrFF")), calls
    assert calls.count("F") >= 3


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
