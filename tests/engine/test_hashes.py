"""Hashes are remembered while a file stays as it is, and a spoilt memory is no memory."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from engine.errors import BundleError
from engine.hashes import HashCache


@pytest.fixture
def old_file(tmp_path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    return path


def later() -> float:
    """Tell the time a minute ahead, when what was written just now counts as settled."""
    return time.time() + 60


def test_a_settled_file_is_read_once(old_file, tmp_path):
    cache = tmp_path / "cache" / "hashes.json"
    with HashCache.open(cache, later) as hashes:
        digest = hashes.sha256(old_file)
    assert digest == hashlib.sha256(b"some weights").hexdigest()
    key = next(iter(json.loads(cache.read_text())))
    cache.write_text(json.dumps({key: "remembered"}))
    with HashCache.open(cache) as hashes:
        assert hashes.sha256(old_file) == "remembered"


def test_a_fresh_file_is_not_remembered(old_file, tmp_path):
    cache = tmp_path / "hashes.json"
    with HashCache.open(cache) as hashes:
        hashes.sha256(old_file)
    assert not cache.exists()


def test_the_memory_is_private_and_holds_no_path(old_file, tmp_path):
    cache = tmp_path / "cache" / "hashes.json"
    with HashCache.open(cache, later) as hashes:
        hashes.sha256(old_file)
    assert cache.stat().st_mode & 0o777 == 0o600
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert "weights" not in cache.read_text()
    assert [path.name for path in cache.parent.iterdir()] == ["hashes.json"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a": 1}', b"\xff", b"x" * (2 << 20)])
def test_a_spoilt_memory_is_an_empty_one(old_file, tmp_path, data):
    cache = tmp_path / "hashes.json"
    cache.write_bytes(data)
    with HashCache.open(cache) as hashes:
        assert hashes.sha256(old_file) == hashlib.sha256(b"some weights").hexdigest()


def test_a_memory_that_cannot_be_written_does_no_harm(old_file, tmp_path):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    with HashCache.open(tmp_path / "blocked" / "hashes.json", later) as hashes:
        hashes.sha256(old_file)


def test_a_missing_file_is_named(tmp_path):
    with HashCache.open(None) as hashes, pytest.raises(BundleError, match="gone cannot be read"):
        hashes.sha256(tmp_path / "gone")


def test_a_check_that_went_well_is_not_made_again_and_a_failed_one_is(tmp_path):
    cache = tmp_path / "hashes.json"
    calls = []
    with HashCache.open(cache) as hashes:
        hashes.once("k", lambda: calls.append(1))
    with HashCache.open(cache) as hashes:
        hashes.once("k", lambda: calls.append(2))
    assert calls == [1]

    def fail() -> None:
        raise BundleError("bad")

    with pytest.raises(BundleError), HashCache.open(cache) as hashes:
        hashes.once("other", fail)
    with HashCache.open(cache) as hashes:
        hashes.once("other", lambda: calls.append(3))
    assert calls == [1, 3]


def test_times_of_a_changed_file_differ(old_file, tmp_path):
    cache = tmp_path / "hashes.json"
    with HashCache.open(cache, later) as hashes:
        hashes.sha256(old_file)
    times = old_file.stat()
    old_file.write_bytes(b"same weight5")
    os.utime(old_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with HashCache.open(cache) as hashes:
        assert hashes.sha256(old_file) == hashlib.sha256(b"same weight5").hexdigest()
