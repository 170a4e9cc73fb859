"""Both real back ends on small graphs: numbers, shapes, errors, buffers, and what they keep."""

import io
import json
import os
import stat
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from onnx import TensorProto

from engine.backends.blobs import BlobCache
from engine.backends.exporting import exported
from engine.backends.fake import FakeBackend
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.openvino import OpenVinoBackend, runtime
from engine.backends.ortproviders import Provider
from engine.errors import BundleError, DeviceError
from tests.engine.tiny_graph import DEPTH, multiplied, write_product, write_timestep, write_two

X = np.random.default_rng(1).standard_normal((2, DEPTH), dtype=np.float32)
SHAPES = {"x": X.shape}
# What OpenVINO puts before a compiled model in a file of its own.
HEAD = (
    b'<?xml version="1.0"?><compiled_blob ie_version="1" file_info="2" runtime_info="{3}"'
    b' header_size_alignment="0"/>\n'
)


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request):
    if request.param == "openvino":
        return OpenVinoBackend("fp32", None, threads=1)
    return OnnxRuntimeBackend(threads=1)


# -- what both do ------------------------------------------------------------------------------


def test_fp16_weights_are_computed_with_in_fp32(backend, tmp_path):
    model = write_product(tmp_path / "unet" / "model.onnx", external=True)
    got = backend.load(model, SHAPES).run({"x": X})
    assert got.dtype == np.float32
    error = np.abs(got - multiplied(X)).max()
    assert error < 1e-4  # values of about 30; fp16 or bf16 arithmetic is off by 0.01 and more


def test_the_output_is_one_buffer_and_inputs_are_copied(backend, tmp_path):
    session = backend.load(write_product(tmp_path / "model.onnx"), SHAPES)
    session.run({"x": X})  # ORT learns the output's shape in its first run
    x = X.copy()
    first = session.run({"x": x})
    kept = first.copy()
    x[:] = 0.0  # the session must not look at the caller's array any more
    assert np.array_equal(first, kept)
    second = session.run({"x": x})
    assert np.shares_memory(first, second)
    assert not second.any()


def test_all_outputs_come_by_name_in_order_and_are_the_callers_own(backend, tmp_path):
    session = backend.load(write_two(tmp_path / "model.onnx"), SHAPES)
    found = session.run_all({"x": X})
    assert list(found) == ["y", "z"]
    assert np.abs(found["y"] - multiplied(X)).max() < 1e-4
    assert np.array_equal(found["z"], X[:, 0])
    kept = {name: value.copy() for name, value in found.items()}
    session.run_all({"x": np.zeros_like(X)})
    session.run({"x": np.zeros_like(X)})
    assert all(np.array_equal(found[name], kept[name]) for name in kept)
    first = session.run({"x": X})
    assert np.abs(first - multiplied(X)).max() < 1e-4


@pytest.mark.parametrize(
    ("dtype", "rank", "expected"),
    [
        (TensorProto.FLOAT, 0, 500.6),
        (TensorProto.FLOAT, 1, 500.6),
        (TensorProto.INT64, 1, 501.0),
        (TensorProto.INT32, 0, 501.0),
        (TensorProto.FLOAT16, 1, 500.5),
    ],
)
def test_a_timestep_fits_every_exporters_input(backend, tmp_path, dtype, rank, expected):
    model = write_timestep(tmp_path / "model.onnx", dtype=dtype, rank=rank)
    session = backend.load(model, {"sample": (2, 2), "timestep": ()})
    sample = np.zeros((2, 2), dtype=np.float32)
    got = session.run({"sample": sample, "timestep": np.array(500.6, dtype=np.float32)})
    assert got == pytest.approx(np.full((2, 2), expected), abs=1e-4)


def test_wrong_shapes_are_refused_by_name(backend, tmp_path):
    session = backend.load(write_product(tmp_path / "model.onnx"), SHAPES)
    with pytest.raises(DeviceError, match=r"'x' has shape \(1, 2048\)"):
        session.run({"x": X[:1]})
    with pytest.raises((BundleError, DeviceError), match=r"sizes|failed on"):
        backend.load(tmp_path / "model.onnx", {"x": (2, DEPTH + 1)}).run(
            {"x": np.zeros((2, DEPTH + 1), dtype=np.float32)}
        )


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "weights"])
def test_a_damaged_model_is_the_bundles_fault(backend, tmp_path, damage):
    model = write_product(tmp_path / "unet" / "model.onnx", external=True)
    if damage == "missing":
        model.unlink()
    elif damage == "truncated":
        model.write_bytes(model.read_bytes()[:-7])
    elif damage == "text":
        model.write_text("this is no model")
    else:
        (tmp_path / "unet" / "model.onnx_data").unlink()
    with pytest.raises(BundleError, match=r"unet/model\.onnx") as raised:
        backend.load(model, SHAPES)
    assert str(tmp_path) not in str(raised.value)  # a path may hold a user's name


def test_they_say_what_they_are(backend):
    assert backend.device == "CPU"
    assert backend.precision == "fp32"
    assert backend.exact() is backend
    assert backend.libraries[0][0] == backend.name
    assert backend.libraries[0][1][0].isdigit()


# -- ONNX Runtime ------------------------------------------------------------------------------


def test_a_provider_that_is_not_there_is_refused_and_not_replaced():
    with pytest.raises(DeviceError, match="no CUDAExecutionProvider") as raised:
        OnnxRuntimeBackend(Provider(name="CUDAExecutionProvider", device="cuda:0"))
    assert "safelight[cuda]" in raised.value.hint


def test_an_input_that_nothing_is_known_of_is_refused(backend, tmp_path):
    model = write_timestep(tmp_path / "unet" / "model.onnx")
    with pytest.raises(BundleError, match="an input 'timestep'"):
        backend.load(model, {"sample": (1, 2)})


# -- OpenVINO ----------------------------------------------------------------------------------


def test_a_precision_that_the_processor_lacks_is_refused():
    capabilities = OpenVinoBackend("fp32", None).capabilities
    for precision, capability in (("bf16", "BF16"), ("fp16", "FP16")):
        if capability in capabilities:
            assert OpenVinoBackend(precision, None).precision == precision
        else:
            with pytest.raises(DeviceError, match=f"does not compute in {precision}"):
                OpenVinoBackend(precision, None)
    with pytest.raises(DeviceError, match="does not compute in int3"):
        OpenVinoBackend("int3", None)


def test_bf16_where_it_exists_is_repaired_in_fp32(tmp_path):
    if "BF16" not in OpenVinoBackend("fp32", None).capabilities:
        pytest.skip("the processor has no bf16 arithmetic")
    backend = OpenVinoBackend("bf16", tmp_path)
    assert backend.exact().precision == "fp32"
    model = write_product(tmp_path / "model.onnx")
    rough = np.abs(backend.load(model, SHAPES).run({"x": X}) - multiplied(X)).max()
    fine = np.abs(backend.exact().load(model, SHAPES).run({"x": X}) - multiplied(X)).max()
    assert fine < 1e-4 < rough


def test_importing_openvino_tells_nobody(tmp_path):
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('asked for the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from engine.backends.openvino import runtime\n"
        "runtime().Core()\n"
        "assert 'openvino.tools.ovc' not in sys.modules\n"
        "import openvino.tools.ovc as converter\n"  # somebody else's need: with a mute stub
        "converter.telemetry.send_event('ov', 'import', 'general_import')\n"
        "loaded = [m for m, what in sys.modules.items() if what is not None]\n"
        "print([m for m in loaded if m.startswith('openvino_telemetry')])\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # no CI variable either
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.rglob("*")) == []  # its client id and consent file would be in the home


def test_the_sessions_own_time_is_a_few_microseconds(tmp_path):
    session = OpenVinoBackend("fp32", None, threads=1).load(
        write_timestep(tmp_path / "model.onnx", dtype=TensorProto.FLOAT, rank=0),
        {"sample": (2, 2), "timestep": ()},
    )
    inputs = {"sample": np.zeros((2, 2), np.float32), "timestep": np.array(1.0, np.float32)}
    times = []
    for _ in range(300):
        start = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - start)
    # 3 % of the shortest step there is (pocket in bf16, 4.3 ms); measured: 0.02 ms
    assert min(times) < 0.000_13


# -- the cache of compiled models --------------------------------------------------------------


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


# -- the fake ----------------------------------------------------------------------------------


def unet_run(session, *, ids=0.5, timestep=500.0):
    return session.run(
        {
            "sample": np.ones((2, 4, 2, 2), np.float32),
            "timestep": np.array(timestep, np.float32),
            "encoder_hidden_states": np.full((2, 3, 128), ids, np.float32),
        }
    )


UNET = {"sample": (2, 4, 2, 2), "timestep": (), "encoder_hidden_states": (2, 3, 128)}


def test_the_fake_depends_on_what_a_network_depends_on(tmp_path):
    session = FakeBackend().load(tmp_path, UNET)
    base = unet_run(session)
    assert np.array_equal(base, unet_run(session))
    assert not np.array_equal(base, unet_run(session, ids=0.4))
    assert not np.array_equal(base, unet_run(session, timestep=400.0))
    text = FakeBackend(embed_dim=8).load(tmp_path, {"input_ids": (1, 3)})
    embeds = text.run({"input_ids": np.array([[1, 2, 2]])})
    assert embeds.shape == (1, 3, 8)
    assert not np.allclose(embeds[0, 1], embeds[0, 2])  # the place counts
    picture = FakeBackend().load(tmp_path, {"latent_sample": (1, 4, 2, 3)})
    assert picture.run({"latent_sample": np.ones((1, 4, 2, 3))}).shape == (1, 3, 16, 24)


def test_the_fake_fails_where_it_is_told_to(tmp_path):
    session = FakeBackend(nan_at_step=1).load(tmp_path, UNET)
    assert [bool(np.isfinite(unet_run(session)).all()) for _ in range(3)] == [True, False, True]
    exact = FakeBackend(precision="bf16", nan_at_step=0).exact()
    assert exact.precision == "fp32"
    assert np.isfinite(unet_run(exact.load(tmp_path, UNET))).all()
    stubborn = FakeBackend(precision="bf16", nan_at_step=0, nan_in_exact=True).exact()
    assert not np.isfinite(unet_run(stubborn.load(tmp_path, UNET))).all()
    with pytest.raises(DeviceError, match="told not to load"):
        FakeBackend(fails_on="timestep").load(tmp_path / "unet" / "model.onnx", UNET)
    with pytest.raises(DeviceError, match="has shape"):
        session.run({name: np.zeros((1, 1)) for name in UNET})


def test_the_fake_takes_its_time_when_asked(tmp_path):
    session = FakeBackend(seconds_per_run=0.02).load(tmp_path, UNET)
    start = time.perf_counter()
    unet_run(session)
    assert time.perf_counter() - start >= 0.02
