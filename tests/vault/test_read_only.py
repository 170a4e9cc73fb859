"""A vault on read-only media reads, says so, and changes nothing."""

import os
import shutil
import subprocess

import pytest

import vault
from tests.vault.conftest import CANARY, draft
from vault.errors import StorageError


@pytest.fixture
def frozen(place, tmp_path):
    """Return a vault on a file system that is mounted read-only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    try:
        shutil.copytree(place.path, disk / "v")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        place.path = disk / "v"
        yield place
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_it_reads_and_refuses_every_change_in_one_sentence(frozen):
    with frozen.open() as opened:
        second, first = opened.list()
        assert first.metadata["prompt"] == CANARY
        assert opened.read(first.id, "picture") == b"pixels"
        assert [record.id for record in opened.search("second")] == [second.id]
        assert opened.status().read_only
        changes = (
            lambda: opened.add([draft()]),
            lambda: opened.edit(first.id, lambda data: data),
            lambda: opened.trash([first.id]),
            lambda: opened.delete([first.id]),
            opened.purge,
            opened.keys.rotate,
            lambda: opened.set_retention(vault.Retention()),
            lambda: opened.keys.replace_phrase(lambda phrase: pytest.fail("shown for nothing")),
        )
        for change in changes:
            with pytest.raises(StorageError, match="read-only media"):
                change()


def test_phrase_and_passphrase_open_it_too(frozen):
    with vault.open_vault(frozen.path, vault.PhraseUnlock(frozen.phrase)) as opened:
        assert len(list(opened.list())) == 2


def test_what_a_crash_left_is_not_touched(frozen):
    """A hot journal would have to be rolled back: that is refused, not ignored."""
    subprocess.run(["mount", "-o", "remount,rw", str(frozen.path.parent)], check=True)
    journal = frozen.path / "index.sqlite-journal"
    program = (
        "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=1'); c.execute('PRAGMA cache_spill=1');"
        "c.execute('BEGIN IMMEDIATE'); c.execute('UPDATE record SET meta = zeroblob(90000)');"
        "c.execute('UPDATE page SET sealed = zeroblob(200000)'); os.kill(os.getpid(), 9)"
    )
    command = [shutil.which("python3") or "python3", "-c", program]
    subprocess.run([*command, str(frozen.path / "index.sqlite")], check=False)
    assert journal.stat().st_size > 0
    subprocess.run(["mount", "-o", "remount,ro", str(frozen.path.parent)], check=True)
    with pytest.raises(StorageError):
        frozen.open()
    assert journal.stat().st_size > 0
