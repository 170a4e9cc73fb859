"""Group normalisation by the kernel: against float64, and inside of OpenVINO's graph."""

import numpy as np
import pytest

from engine.backends.norms import norm_operation, normalise_by_kernel
from engine.backends.openvino import runtime
from engine.kernels import library
from engine.kernels.library import Kernels, Norm

OV = runtime()
OP = OV.opset13
FOUND, WHY = library.find()
BF16 = "BF16" in OV.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
pytestmark = pytest.mark.usefixtures("cores")
needs_kernels = pytest.mark.skipif(
    FOUND is None or not FOUND.has_bf16, reason=f"no kernels in bf16: {WHY}"
)
needs_bf16 = pytest.mark.skipif(
    FOUND is None or not FOUND.has_bf16 or not BF16, reason=f"no kernels, or no bf16: {WHY}"
)
STEP = 2.0**-8  # of bf16, relative


def bf16(values):
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def wide(values):
    return (values.astype(np.uint32) << 16).view(np.float32)


def exact(x, groups, gain, bias, silu):
    batches, pixels, channels = x.shape
    value = wide(x).astype(np.float64).reshape(batches, pixels, groups, -1)
    value = value - value.mean((1, 3), keepdims=True)
    value = value / np.sqrt((value**2).mean((1, 3), keepdims=True) + 1e-5)
    value = value.reshape(batches, pixels, channels) * gain + bias
    return value / (1 + np.exp(-value)) if silu else value


def normalised(x, groups, gain, bias, silu, threads=2):
    y = np.full((x.size + 64,), 0x1234, np.uint16)  # room behind, that must stay
    sizes = Norm(
        batches=x.shape[0],
        pixels=x.shape[1],
        channels=x.shape[2],
        groups=groups,
        epsilon=1e-5,
        silu=silu,
    )
    addresses = (x.ctypes.data, y.ctypes.data, gain.ctypes.data, bias.ctypes.data)
    Kernels(threads=threads).normalise(sizes, addresses)
    assert (y[x.size :] == 0x1234).all()
    return y[: x.size].reshape(x.shape)


@needs_kernels
@pytest.mark.parametrize("silu", [0, 1])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 100, 320), 32),
        ((1, 513, 7), 7),
        ((3, 1, 36), 4),
        ((1, 1500, 33), 3),
        ((2, 1024, 48), 1),
    ],
)
def test_any_sizes(shape, groups, silu):
    draw = np.random.default_rng(shape[2])
    x = bf16(draw.standard_normal(shape) * 3 + draw.standard_normal(shape[2]))
    gain, bias = (draw.standard_normal(shape[2]).astype(np.float32) for _ in range(2))
    got, right = wide(normalised(x, groups, gain, bias, silu)), exact(x, groups, gain, bias, silu)
    assert (np.abs(got - right) < STEP * np.abs(right) + 1e-4 * np.abs(right).max()).all()


@needs_kernels
def test_a_mean_far_from_zero_costs_no_digits():
    x = bf16(2000 + 8 * np.random.default_rng(0).standard_normal((1, 5000, 64)))
    one, none = np.ones(64, np.float32), np.zeros(64, np.float32)
    got, right = wide(normalised(x, 2, one, none, 0)), exact(x, 2, one, none, 0)
    assert np.abs(got - right).max() < 0.02


@needs_kernels
def test_what_is_not_a_number_is_not_hidden():
    x = bf16(np.ones((2, 40, 32)))
    x[1, 3, 5] = 0x7FC0
    one, none = np.ones(32, np.float32), np.zeros(32, np.float32)
    got = wide(normalised(x, 4, one, none, 1))
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1, :, :8]).all()
    assert np.isfinite(got[1, :, 8:]).all()


@needs_kernels
def test_threads_change_no_bit_and_bad_sizes_are_refused():
    x = bf16(np.random.default_rng(1).standard_normal((2, 3000, 64)))
    one, none = np.ones(64, np.float32), np.zeros(64, np.float32)
    assert (normalised(x, 8, one, none, 1, 1) == normalised(x, 8, one, none, 1, 5)).all()
    with pytest.raises(ValueError, match="does not take"):
        normalised(x, 7, one, none, 0)


def block(x, channels, draw, *, silu):
    """A group norm as our exporter writes it, a convolution, and the sum with what came in."""
    batch, _, height, width = x.get_output_partial_shape(0).to_shape()
    flat = OP.reshape(x, OP.constant(np.array([batch, 4, -1])), False)
    value = OP.mvn(flat, OP.constant(np.array([2])), True, 1e-6, "INSIDE_SQRT")
    value = OP.multiply(value, OP.constant(np.full((1, 4, 1), 1.5, np.float32)))
    value = OP.reshape(value, OP.constant(np.array([batch, channels, height, width])), False)
    for operation in (OP.multiply, OP.add):
        each = draw.standard_normal(channels).astype(np.float16)
        each = OP.unsqueeze(OP.constant(each), OP.constant(np.array([1, 2])))
        value = operation(value, OP.convert(each, "f32"))
    if silu:
        value = OP.multiply(value, OP.sigmoid(value))
    weight = (draw.standard_normal((channels, channels, 3, 3)) / (3 * channels**0.5)).astype("f4")
    return OP.add(OP.convolution(value, OP.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1]), x)


def network(height, width, channels=64):
    draw = np.random.default_rng(5)
    x = OP.parameter([1, channels, height, width], np.float32, name="x")
    weight = (draw.standard_normal((channels, channels, 1, 1)) / channels**0.5).astype(np.float32)
    value = OP.convolution(x, OP.constant(weight), [1, 1], [0, 0], [0, 0], [1, 1])
    for silu in (True, False, True):
        value = block(value, channels, draw, silu=silu)
    return OV.Model([value], [x])


@needs_bf16
def test_it_is_as_near_to_fp32_as_openvino_itself():
    model = network(64, 96)
    given = np.random.default_rng(0).standard_normal((1, 64, 64, 96)).astype(np.float32)

    def computed(precision):
        compiled = OV.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return compiled([given])[0].copy(), compiled.get_runtime_model().get_ordered_ops()

    right, stock = computed("f32")[0], computed("bf16")[0]
    assert normalise_by_kernel(OV, model, norm_operation(OV, FOUND)) == 3
    ours, nodes = computed("bf16")
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
    assert kinds.count("MVN") == kinds.count("Sigmoid") == 0
    assert kinds.count("Transpose") == 0, "turned around where channels lie last already"
    near, far = (np.linalg.norm(each - right) for each in (ours, stock))
    assert near < 1.1 * far


@needs_kernels
def test_small_ones_stay_openvinos():
    assert normalise_by_kernel(OV, network(16, 16), norm_operation(OV, FOUND)) == 0
