"""What is kept of compiled models: found again, verified, bounded, the user's alone."""

import io
import json
import os
import stat
import time
from contextlib import suppress

import numpy as np
import pytest

from engine.backends.blobs import BlobCache
from engine.backends.exporting import exported
from engine.backends.openvino import OpenVinoBackend, runtime
from engine.errors import BundleError, DeviceError
from tests.engine.tiny_graph import DEPTH, write_product

X = np.random.default_rng(1).standard_normal((2, DEPTH), dtype=np.float32)
SHAPES = {"x": X.shape}
# What OpenVINO puts before a compiled model in a file of its own.
HEAD = (
    b'<?xml version="1.0"?><compiled_blob ie_version="1" file_info="2" runtime_info="{3}"'
    b' header_size_alignment="0"/>\n'
)


def test_a_compiled_model_is_found_again_without_its_source(tmp_path):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    first = OpenVinoBackend("fp32", tmp_path / "cache").load(model, SHAPES, identity="a/unet")
    expected = first.run({"x": X}).copy()
    model.unlink()
    again = OpenVinoBackend("fp32", tmp_path / "cache").load(model, SHAPES, identity="a/unet")
    assert np.array_equal(again.run({"x": X}), expected)


def test_another_identity_shape_or_no_identity_misses(tmp_path):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    backend = OpenVinoBackend("fp32", tmp_path / "cache")
    backend.load(model, SHAPES, identity="a/unet")
    model.unlink()
    for shapes, identity in (
        (SHAPES, "b/unet"),
        ({"x": (1, DEPTH)}, "a/unet"),
        (SHAPES, ""),
    ):
        with pytest.raises(BundleError):
            backend.load(model, shapes, identity=identity)
    with pytest.raises(BundleError):  # other options are another compiled model
        OpenVinoBackend("fp32", tmp_path / "cache", threads=1).load(
            model, SHAPES, identity="a/unet"
        )


def test_nothing_is_kept_without_an_identity(tmp_path):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    OpenVinoBackend("fp32", tmp_path / "cache").load(model, SHAPES)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign"])
def test_a_damaged_blob_is_compiled_anew(tmp_path, damage):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    backend = OpenVinoBackend("fp32", tmp_path / "cache")
    expected = backend.load(model, SHAPES, identity="a").run({"x": X}).copy()
    (blob,) = (tmp_path / "cache" / "openvino").glob("*.blob")
    good = blob.read_bytes()
    found = BlobCache(blob.parent)
    assert found.get(blob.stem) is not None
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    damaged = {"flip": bytes(bad), "truncate": good[:-1], "empty": b"", "foreign": b"x" * 100}
    blob.write_bytes(damaged[damage])
    assert found.get(blob.stem) is None
    blob.write_bytes(damaged[damage])
    assert np.array_equal(backend.load(model, SHAPES, identity="a").run({"x": X}), expected)
    assert found.get(blob.stem) is not None  # made again, and good again


def test_a_verified_blob_that_openvino_refuses_is_compiled_anew(tmp_path):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    backend = OpenVinoBackend("fp32", tmp_path / "cache")
    expected = backend.load(model, SHAPES, identity="a").run({"x": X}).copy()
    (blob,) = (tmp_path / "cache" / "openvino").glob("*.blob")
    BlobCache(blob.parent).put(blob.stem, [b"from another version ", b"of the library"])
    assert np.array_equal(backend.load(model, SHAPES, identity="a").run({"x": X}), expected)


def test_what_this_process_wrote_is_hashed_only_when_it_changed(tmp_path, monkeypatch):
    cache = BlobCache(tmp_path)
    cache.put("k", [b"weights"])
    hashed = []
    monkeypatch.setattr("engine.backends.blobs._check", hashed.append)
    assert bytes(BlobCache(tmp_path).get("k").data) == b"weights"
    assert hashed == []
    (path,) = tmp_path.glob("*.blob")
    path.write_bytes(path.read_bytes()[:-1] + b"z")
    BlobCache(tmp_path).get("k")
    assert len(hashed) == 1


def test_a_large_compiled_model_is_read_again_without_what_it_was_made_of(tmp_path, monkeypatch):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    backend = OpenVinoBackend("fp32", tmp_path / "cache")
    expected = backend.load(model, SHAPES, identity="a").run({"x": X}).copy()
    read = []
    whole = OpenVinoBackend._import
    monkeypatch.setattr("engine.backends.openvino.LARGE", 1)
    monkeypatch.setattr(
        OpenVinoBackend, "_import", lambda *given: read.append(given[2]) or whole(*given)
    )
    found = OpenVinoBackend("fp32", tmp_path / "other").load(model, SHAPES, identity="a")
    assert len(read) == 1
    assert np.array_equal(found.run({"x": X}), expected)
    monkeypatch.setattr(OpenVinoBackend, "_import", lambda *_: None)  # refused all the same
    found = OpenVinoBackend("fp32", tmp_path / "third").load(model, SHAPES, identity="a")
    assert np.array_equal(found.run({"x": X}), expected)


def test_a_blob_that_was_verified_is_hashed_again_once_it_changed(tmp_path):
    cache = BlobCache(tmp_path, now=lambda: time.time() + 60)
    cache.put("k", [b"weights"])
    (path,) = tmp_path.glob("*.blob")
    found = cache.get("k")
    assert found is not None
    found.unload()
    assert bytes(found.data) == b"weights"
    known = json.loads((tmp_path / "verified.json").read_text())
    assert len(known) == 1
    assert cache.get("k") is not None
    assert json.loads((tmp_path / "verified.json").read_text()) == known
    state = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"z")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as if it were the old one
    assert cache.get("k") is None


class Compiled:
    """A compiled model that says when it was asked for all of itself at once."""

    def export_model(self):
        return io.BytesIO(b"asked")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"1.blob": HEAD + b"model"}, b"model"),
        ({}, None),  # a full disk
        ({"1.blob": HEAD.replace(b'"0"', b'"64"') + bytes(64) + b"model"}, b"asked"),
        ({"1.blob": b"model"}, b"asked"),
        ({"1.blob": HEAD + b"model", "2.blob": HEAD + b"other"}, b"asked"),
    ],
    ids=["written", "nothing", "aligned", "headless", "two"],
)
def test_a_compiled_model_is_taken_from_the_file_that_openvino_wrote(tmp_path, files, expected):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    parts = exported(Compiled(), tmp_path, wrote=True)
    assert (parts if parts is None else b"".join(parts)) == expected


def test_what_openvino_writes_itself_is_what_it_exports(tmp_path):
    model = write_product(tmp_path / "bundle" / "model.onnx")
    backend = OpenVinoBackend("fp32", tmp_path / "cache")
    backend.load(model, SHAPES, identity="a")
    kept = [path.suffix for path in (tmp_path / "cache" / "openvino").iterdir()]
    assert sorted(kept) == [".blob", ".json"]  # and no folder is left
    (blob,) = (tmp_path / "cache" / "openvino").glob("*.blob")
    data = bytes(BlobCache(blob.parent).get(blob.stem).data)
    core = runtime().Core()
    graph = core.read_model(model)
    graph.reshape({"x": list(SHAPES["x"])})
    options = backend._options | {"CACHE_DIR": str(tmp_path / "own")}
    compiled = core.compile_model(graph, "CPU", options)
    assert b"".join(exported(compiled, tmp_path / "own", wrote=True)) == (
        compiled.export_model().getvalue()
    )
    assert len(data) > 100
    assert core.import_model(runtime().Tensor(np.frombuffer(data, np.uint8)), "CPU") is not None


def test_a_place_to_work_is_private_and_gone_afterwards(tmp_path):
    cache = BlobCache(tmp_path / "cache")
    with suppress(DeviceError), cache.workplace() as folder:
        (folder / "1.blob").write_bytes(b"half")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 or os.name != "posix"
        raise DeviceError("it cannot be compiled")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with BlobCache(tmp_path / "file").workplace() as folder:
        assert folder is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_cache_is_the_users_alone(tmp_path):
    cache = BlobCache(tmp_path / "cache")
    cache.put("k", [b"weights"])
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "cache" / "k.blob").stat().st_mode) == 0o600
    assert bytes(cache.get("k").data) == b"weights"
    (tmp_path / "cache").chmod(0o770)  # now somebody else may have put it there
    assert cache.get("k") is None
    cache.put("l", [b"more"])
    assert not (tmp_path / "cache" / "l.blob").exists()


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path):
    cache = BlobCache(tmp_path, limit=3 * (100 + 64))
    for age, key in enumerate(("a", "b", "c")):
        cache.put(key, [bytes(100)])
        os.utime(tmp_path / f"{key}.blob", (age, age))
    assert cache.get("a") is not None  # used: now the youngest
    cache.put("d", [bytes(60), bytes(40)])
    assert sorted(path.stem for path in tmp_path.glob("*.blob")) == ["a", "c", "d"]


def test_what_a_killed_process_left_half_written_is_swept_after_a_day(tmp_path):
    now = time.time()
    for name, hours in (("old", 25), ("young", 23)):
        (tmp_path / f"{name}.partial").write_bytes(bytes(100))
        (tmp_path / f"{name}-folder.partial").mkdir()
        (tmp_path / f"{name}-folder.partial" / "1.blob").write_bytes(bytes(100))
        for path in tmp_path.glob(f"{name}*"):
            os.utime(path, (now - hours * 3600, now - hours * 3600))
    BlobCache(tmp_path, now=lambda: now).put("a", [bytes(100)])
    left = ["a.blob", "verified.json", "young-folder.partial", "young.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = BlobCache(tmp_path / "file")
    cache.put("k", [b"weights"])
    assert cache.get("k") is None
    cache.drop("k")
