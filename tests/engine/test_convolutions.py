"""3x3 convolutions and normalisations in fp32 by the kernels: against float64, and in graphs."""

import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.backends import convolutions
from engine.backends.convolutions import convolution_operation, convolve_by_kernel
from engine.backends.norms import norm_operation, normalise_by_kernel
from engine.backends.openvino import OpenVinoBackend, runtime
from engine.devices import describe
from engine.kernels import build as building
from engine.kernels import library
from engine.kernels.library import Convolution, Kernels, Norm
from engine.kernels.winograd import packed
from safelight.shelf import Shelf

OV = runtime()
OP = OV.opset13
FOUND, WHY = library.find()
pytestmark = [
    pytest.mark.skipif(FOUND is None, reason=f"no kernels: {WHY}"),
    pytest.mark.usefixtures("cores"),
]
# Of the largest value: float's rounding of up to 650 * 9 products, four times as much as without
# the six points of a tile.
TOLERANCE = 2e-5


def drawn(batches, height, width, inputs, outputs, *, doubled=0):
    draw = np.random.default_rng(inputs + outputs)
    x = draw.standard_normal((batches, height >> doubled, width >> doubled, inputs), np.float32)
    weight = draw.standard_normal((outputs, inputs, 3, 3), np.float32) / (3 * inputs**0.5)
    bias = draw.standard_normal((batches, outputs), np.float32)
    more = draw.standard_normal((batches, height, width, outputs), np.float32)
    return x, weight.astype(np.float32), bias, more


def exact(x, weight, bias, more=None, *, doubled=0):
    x = x.astype(np.float64).repeat(1 + doubled, 1).repeat(1 + doubled, 2)
    height, width = x.shape[1:3]
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = bias[:, None, None] + (0 if more is None else more.astype(np.float64))
    for i in range(3):
        for j in range(3):
            y = y + around[:, i : i + height, j : j + width] @ weight[:, :, i, j].T
    return y


def convolved(x, weight, bias, more=None, *, doubled=0, threads=2):
    batches, height, width, inputs = x.shape
    height, width, outputs = height << doubled, width << doubled, len(weight)
    y = np.full(batches * height * width * outputs + 64, 7.5, np.float32)  # room that must stay
    sizes = Convolution(
        batches=batches,
        height=height,
        width=width,
        inputs=inputs,
        outputs=outputs,
        doubled=doubled,
        half=int(weight.dtype == np.float16),
    )
    arrays = (x, y, packed(weight), bias, more)
    addresses = tuple(0 if each is None else each.ctypes.data for each in arrays)
    Kernels(path=1, threads=threads).convolve(sizes, addresses)
    assert (y[-64:] == 7.5).all()
    return y[:-64].reshape(batches, height, width, outputs)


SIZES = [
    (1, 1, 1, 8, 8),
    (1, 3, 30, 648, 16),
    (1, 4, 4, 8, 24),  # half a panel of outputs
    (2, 9, 6, 16, 40),
    (2, 8, 8, 72, 72),  # tiles by fours, panels that are no whole group
    # From 2,048 pixels on: a thread alone, or all together, with one depth of inputs and with more.
    (3, 70, 50, 64, 48),  # several rounds of a thread
    (1, 45, 46, 400, 40),
    (1, 61, 45, 320, 360),  # tiles cut off on two sides
    (2, 33, 40, 968, 104),
]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_any_sizes(sizes, kind):
    x, weight, bias, more = drawn(*sizes)
    weight = weight.astype(kind)
    for added in (None, more):
        right = exact(x, weight.astype(np.float64), bias, added)
        got = convolved(x, weight, bias, added)
        assert np.abs(got - right).max() < TOLERANCE * np.abs(right).max()


def test_rounds_of_all_threads_together():
    """So many values that they do not go into one round; every tenth row is compared."""
    x, weight, bias, _ = drawn(1, 168, 160, 64, 520)
    rows = slice(0, None, 10)
    got, right = convolved(x, weight, bias)[:, rows], exact(x, weight, bias)[:, rows]
    assert np.abs(got - right).max() < TOLERANCE * np.abs(right).max()


def test_the_smallest_and_largest_weights_of_fp16():
    """Those below its normal numbers too, which a processor may be told to take for zero."""
    x = np.ones((1, 4, 4, 8), np.float32)
    weight = np.zeros((8, 8, 3, 3), np.float16)
    weight[:, 0, 1, 1] = [6e-8, 3e-5, 65504, -65504, -6e-8, 1, 0, -0.0]
    got = convolved(x, weight, np.zeros((1, 8), np.float32))
    right = np.broadcast_to(weight[:, 0, 1, 1].astype(np.float32), got.shape)
    np.testing.assert_allclose(got, right, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sizes", [(1, 8, 8, 8, 8), (2, 34, 32, 136, 256)], ids=str)
def test_a_picture_that_is_doubled_on_the_way(sizes):
    x, weight, bias, more = drawn(*sizes, doubled=1)
    right = exact(x, weight, bias, more, doubled=1)
    got = convolved(x, weight, bias, more, doubled=1)
    assert np.abs(got - right).max() < TOLERANCE * np.abs(right).max()


@pytest.mark.parametrize(
    ("side", "inputs", "outputs"), [(40, 64, 48), (46, 64, 48), (46, 648, 336)]
)
def test_threads_change_no_bit(side, inputs, outputs):
    given = drawn(1, side, side, inputs, outputs)[:3]
    one, seven = (convolved(*given, threads=threads) for threads in (1, 7))
    assert (one == seven).all()


def test_what_is_not_a_number_is_not_hidden_and_stays_in_its_picture():
    x, weight, bias, _ = drawn(2, 12, 12, 16, 16)
    x[1, 5, 6, 3] = np.nan
    got = convolved(x, weight, bias)
    assert np.isnan(got[1, 4:7, 5:8]).all()
    assert np.isfinite(got[0]).all()


def test_sizes_that_it_does_not_take_are_refused():
    for sizes in ((1, 4, 4, 12, 8), (1, 4, 4, 8, 12)):
        with pytest.raises(ValueError, match="does not take"):
            convolved(*drawn(*sizes))
    odd = Convolution(batches=1, height=5, width=4, inputs=8, outputs=8, doubled=1, half=0)
    with pytest.raises(ValueError, match="does not take"):
        Kernels(path=1).convolve(odd, (0, 0, 0, 0, 0))


@pytest.mark.parametrize("silu", [0, 1])
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 100, 320), 32), ((1, 1, 8), 4), ((3, 300, 40), 5), ((1, 700, 24), 1)]
)
def test_normalisation_of_any_sizes(shape, groups, silu):
    draw = np.random.default_rng(shape[2])
    x = (draw.standard_normal(shape) * 3 + 50 * draw.standard_normal(shape[2])).astype(np.float32)
    gain, bias = (draw.standard_normal(shape[2]).astype(np.float32) for _ in range(2))
    batches, pixels, channels = shape
    value = x.astype(np.float64).reshape(batches, pixels, groups, -1)
    value = value - value.mean((1, 3), keepdims=True)
    value = value / np.sqrt((value**2).mean((1, 3), keepdims=True) + 1e-5)
    right = value.reshape(shape) * gain + bias
    right = right / (1 + np.exp(-right)) if silu else right
    y = np.full(x.size + 64, 7.5, np.float32)
    sizes = Norm(
        batches=batches, pixels=pixels, channels=channels, groups=groups, epsilon=1e-5, silu=silu
    )
    addresses = (x.ctypes.data, y.ctypes.data, gain.ctypes.data, bias.ctypes.data)
    Kernels(path=1).normalise(sizes, addresses, bf16=False)
    assert (y[x.size :] == 7.5).all()
    # A value of 150 less a mean of 50 has lost a digit before anything is computed.
    assert np.abs(y[: x.size].reshape(shape) - right).max() < 1e-5 * np.abs(right).max()


def normalised(x, channels):
    batch, _, height, width = x.get_output_partial_shape(0).to_shape()
    flat = OP.reshape(x, OP.constant(np.array([batch, 4, -1])), False)
    value = OP.mvn(flat, OP.constant(np.array([2])), True, 1e-6, "INSIDE_SQRT")
    value = OP.reshape(value, OP.constant(np.array([batch, channels, height, width])), False)
    value = OP.multiply(value, OP.constant(np.full((1, channels, 1, 1), 1.25, np.float32)))
    return OP.multiply(value, OP.sigmoid(value))


def convolution(x, draw, inputs, outputs, *, strides=1):
    weight = (draw.standard_normal((outputs, inputs, 3, 3)) / (3 * inputs**0.5)).astype(np.float16)
    weight = OP.convert(OP.constant(weight), "f32")
    value = OP.convolution(x, weight, [strides] * 2, [1, 1], [1, 1], [1, 1])
    bias = OP.constant(draw.standard_normal((1, outputs, 1, 1)).astype(np.float32))
    return OP.add(value, bias)


def network(*, channels=128, height=16, width=24):
    """A residual block that is told the time, what comes in added in the end, and one doubled."""
    draw = np.random.default_rng(3)
    x = OP.parameter([2, channels, height, width], np.float32, name="x")
    time = OP.parameter([2, channels], np.float32, name="time")
    shift = OP.unsqueeze(time, OP.constant(np.array([2, 3])))
    come = convolution(x, draw, channels, channels)
    value = OP.add(convolution(normalised(come, channels), draw, channels, channels), shift)
    value = OP.add(convolution(normalised(value, channels), draw, channels, channels), come)
    larger = OP.interpolate(
        value,
        OP.constant(np.array([2.0, 2.0], np.float32)),
        "nearest",
        "scales",
        [0],
        [0],
        "asymmetric",
        "floor",
        axes=OP.constant(np.array([2, 3])),
    )
    return OV.Model([convolution(larger, draw, channels, channels)], [x, time])


def computed(model, given):
    core = OV.Core()
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(given)[0].copy(), compiled.get_runtime_model().get_ordered_ops()


@pytest.fixture
def smaller(monkeypatch):
    """Take convolutions that a test has time for."""
    monkeypatch.setattr(convolutions, "LEAST", 1)
    monkeypatch.setattr(convolutions, "LEAST_OF_FEW", 1)
    monkeypatch.setattr("engine.backends.norms.LEAST", 1)


@pytest.mark.usefixtures("smaller")
def test_a_block_of_a_network_is_computed_as_openvino_does():
    model = network()
    draw = np.random.default_rng(1)
    given = [draw.standard_normal(list(port.shape)).astype(np.float32) for port in model.inputs]
    stock, _ = computed(model, given)
    assert convolve_by_kernel(OV, model, convolution_operation(OV, FOUND)) == 4
    assert normalise_by_kernel(OV, model, norm_operation(OV, FOUND, bf16=False), bf16=False) == 2
    ours, nodes = computed(model, given)
    assert np.abs(ours - stock).max() < TOLERANCE * np.abs(stock).max()
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
    assert {"Convolution", "MVN", "Interpolate", "Sigmoid"}.isdisjoint(kinds)
    assert kinds.count("Transpose") <= 2, "turned around between operations of our own"


@pytest.mark.usefixtures("smaller")
def test_what_does_not_match_is_left_alone():
    draw = np.random.default_rng(1)
    taken = partial(convolve_by_kernel, OV, made=convolution_operation(OV, FOUND))
    x = OP.parameter([1, 128, 16, 16], np.float32, name="x")
    assert taken(OV.Model([convolution(x, draw, 128, 128, strides=2)], [x])) == 0
    assert taken(OV.Model([convolution(x, draw, 128, 64)], [x])) == 0  # too few outputs
    assert taken(OV.Model([convolution(x, draw, 128, 132)], [x])) == 0  # no multiple of eight
    free = OP.parameter([-1, 128, 16, 16], np.float32, name="x")
    assert taken(OV.Model([convolution(free, draw, 128, 128)], [free])) == 0
    norm = norm_operation(OV, FOUND, bf16=False)
    alone = OV.Model([normalised(x, 128)], [x])
    assert normalise_by_kernel(OV, alone, norm, bf16=False) == 0  # it would be turned around


def test_small_networks_stay_openvinos():
    assert convolve_by_kernel(OV, network(), convolution_operation(OV, FOUND)) == 0


@pytest.mark.usefixtures("smaller")
def test_a_compiled_model_comes_back_from_the_cache_and_gives_the_same_picture(tmp_path):
    bundle = Shelf(tmp_path, tmp_path).open("pocket")
    latents = np.random.default_rng(1).standard_normal((1, 4, 16, 16)).astype(np.float32)

    def decoded(cache):
        backend = OpenVinoBackend("fp32", cache)
        assert backend.kernel.startswith("f32 on AVX2")
        shapes = {"latent_sample": latents.shape}
        session = backend.load(bundle.model("vae_decoder"), shapes, identity="pocket")
        return session.run({"latent_sample": latents}).copy()

    made, again = decoded(tmp_path / "cache"), decoded(tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "openvino").glob("*.blob"))) == 1
    assert (made == again).all()


def test_without_a_library_openvino_computes_it_all(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "FILE", tmp_path / "missing.so")
    assert OpenVinoBackend("fp32", None).kernel == "none"


def test_what_is_listed_says_what_the_kernels_compute():
    said = describe("cpu", "auto")["kernel"]
    assert "large convolutions in fp32" in said
    assert ("attention in fp32" in said) == (not FOUND.has_avx512)
    assert ("bf16" in said) == FOUND.has_bf16


@pytest.mark.slow
def test_no_byte_outside_is_touched_nor_undefined(tmp_path):
    """Random calls of each in C, under sanitizers, in a process."""
    sanitized = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    program = tmp_path / "fuzz"
    source = Path(__file__).with_name("f32_fuzz.c")
    why = building.build(program, extra=sanitized, program=source)
    if why:
        pytest.skip(f"no sanitizers: {why}")
    done = subprocess.run([program, "200"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "200 of each" in done.stdout
