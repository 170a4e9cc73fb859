"""Both real back ends and the fake on small graphs: numbers, shapes, errors, buffers."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import TensorProto

from engine.backends.fake import FakeBackend
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.openvino import OpenVinoBackend
from engine.backends.ortproviders import Provider
from engine.errors import BundleError, DeviceError
from tests.engine.tiny_graph import DEPTH, multiplied, write_product, write_timestep, write_two

X = np.random.default_rng(1).standard_normal((2, DEPTH), dtype=np.float32)
SHAPES = {"x": X.shape}


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
