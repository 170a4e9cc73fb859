"""Rewrites for OpenVINO's CPU plugin: they compute the same and match by structure."""

import math
from functools import partial

import numpy as np
import pytest

from engine.backends.openvino import runtime
from engine.backends.rewrites import rewrite
from engine.bundle import Bundle
from safelight.shelf import Shelf

OV = runtime()
OP = OV.opset13
DRAW = np.random.default_rng(3)
# Six digits of float32 in another order of additions, of values about 1.
TOLERANCE = 2e-6


def constant(*shape, dtype=np.float32):
    return DRAW.standard_normal(shape).astype(dtype)


def group_norm(x, groups, axis=2, epsilon=1e-6):
    batch, channels, height, width = x.get_partial_shape().to_shape()
    size = channels // groups * height * width
    flat = OP.reshape(x, OP.constant(np.array([batch, groups, size])), False)
    normal = OP.mvn(flat, OP.constant(np.array([axis])), True, epsilon, "INSIDE_SQRT")
    return OP.reshape(normal, OP.constant(np.array([batch, channels, height, width])), False)


def linear_in_two(x, dtype, transposed):
    weight = constant(10, 6, dtype=dtype) if transposed else constant(6, 10, dtype=dtype)
    product = OP.matmul(x, OP.convert(OP.constant(weight), "f32"), False, transposed)
    both = OP.split(OP.add(product, OP.constant(constant(10))), OP.constant(np.int64(2)), 2)
    return OP.multiply(both.output(0), OP.gelu(both.output(1), "erf"))


def computed(model, *inputs):
    compiled = OV.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(list(inputs))[0].copy(), compiled.get_runtime_model().get_ordered_ops()


def layers(nodes, kind):
    return sum(node.get_rt_info()["layerType"].astype(str) == kind for node in nodes)


def computed_by(nodes, first):
    """Give the names of all that one node computes, where the first of them begins with `first`."""
    names = [node.get_rt_info()["originalLayersNames"].astype(str).split(",") for node in nodes]
    (found,) = (each for each in names if each[0].startswith(first))
    return found


def copied(nodes):
    """Give the pictures whose layout in memory is changed: more than a pixel each."""
    shapes = [
        node.get_output_partial_shape(0).to_shape()
        for node in nodes
        if node.get_rt_info()["layerType"].astype(str) == "Reorder"
    ]
    return [shape for shape in shapes if len(shape) == 4 and shape[2] * shape[3] > 1]


@pytest.mark.parametrize("groups", [1, 4, 12])
def test_a_group_norm_keeps_its_values(groups):
    x = OP.parameter([2, 12, 51, 57], np.float32, name="x")
    given = constant(2, 12, 51, 57) + np.float32(3.0) * constant(1, 12, 1, 1)
    model = OV.Model([group_norm(x, groups)], [x])
    stock, _ = computed(model, given)
    assert rewrite(OV, model) == 1
    ours, nodes = computed(model, given)
    assert layers(nodes, "MVN") == 0
    assert np.abs(ours - stock).max() < TOLERANCE * np.abs(stock).max()


def test_a_small_one_is_left_to_the_plugin():
    x = OP.parameter([2, 96, 16, 16], np.float32, name="x")
    assert rewrite(OV, OV.Model([group_norm(x, 32)], [x])) == 0


def test_a_mean_far_from_zero_costs_no_digits():
    """mean(x^2) - mean(x)^2 in float32 would be wrong in the first digit here."""
    x = OP.parameter([1, 4, 128, 128], np.float32, name="x")
    given = np.float32(2000.0) + constant(1, 4, 128, 128)
    model = OV.Model([group_norm(x, 2)], [x])
    assert rewrite(OV, model) == 1
    ours, _ = computed(model, given)
    exact = given.astype(np.float64).reshape(1, 2, -1)
    exact = (exact - exact.mean(2, keepdims=True)) / np.sqrt(exact.var(2, keepdims=True) + 1e-6)
    # float32 has steps of 1e-4 at 2000; the mean of 32,768 such values is good to a few of them
    assert np.abs(ours.reshape(1, 2, -1) - exact).max() < 1e-3


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_linear_layer_in_two_keeps_its_values(dtype, transposed):
    x = OP.parameter([2, 3, 6], np.float32, name="x")
    given = constant(2, 3, 6)
    model = OV.Model([linear_in_two(x, dtype, transposed)], [x])
    stock, _ = computed(model, given)
    assert rewrite(OV, model) == 1
    ours, nodes = computed(model, given)
    assert layers(nodes, "Split") == 0
    assert np.abs(ours - stock).max() < TOLERANCE * np.abs(stock).max()


def spelt_out(x, *, root=2.0**0.5, half=0.5):
    """GELU as exporters write it."""
    error = OP.erf(OP.divide(x, OP.constant(np.float32(root))))
    one_more = OP.add(error, OP.constant(np.float32(1.0)))
    return OP.multiply(x, OP.multiply(OP.constant(np.float32(half)), one_more))


def behind_linear(gelu):
    """x -> linear layer -> gelu."""
    x = OP.parameter([1, 300, 64], np.float32, name="x")
    weight = OP.constant(np.eye(64, dtype=np.float32))
    layer = OP.add(OP.matmul(x, weight, False, True), OP.constant(np.zeros(64, np.float32)))
    return OV.Model([gelu(layer)], [x])


@pytest.mark.parametrize("gelu", [spelt_out, lambda x: OP.gelu(x, "erf")], ids=["spelt", "one"])
def test_gelu_of_a_linear_layer_is_kept_apart_from_it(gelu):
    model = behind_linear(gelu)
    given = np.linspace(-9.0, 9.0, 300 * 64, dtype=np.float32).reshape(1, 300, 64)
    exact = np.array([x / 2 * math.erfc(-x / math.sqrt(2)) for x in given.ravel().tolist()])
    stock, fused = computed(model, given)
    assert rewrite(OV, model) == 0  # only where it is asked for
    assert rewrite(OV, model, open_gelus=True) == 1
    ours, apart = computed(model, given)
    for got in (stock, ours):
        assert np.abs(got.ravel() - exact).max() < TOLERANCE * np.abs(given).max()
    assert [len(computed_by(nodes, "MatMul")) > 1 for nodes in (fused, apart)] == [True, False]


def test_what_is_no_gelu_of_a_linear_layer_is_left_alone():
    for gelu in (
        partial(spelt_out, root=1.5),
        partial(spelt_out, half=0.25),
        lambda x: OP.gelu(x, "tanh"),
    ):
        assert rewrite(OV, behind_linear(gelu), open_gelus=True) == 0
    x = OP.parameter([1, 4, 8], np.float32, name="x")
    assert rewrite(OV, OV.Model([spelt_out(x)], [x]), open_gelus=True) == 0  # of no layer


def doubled(x, mode="asymmetric", nearest="floor", scale=2, pads=1):
    size = [scale * each for each in x.get_partial_shape().to_shape()[2:]]
    larger = OP.interpolate(
        x,
        OP.constant(np.array(size)),
        "nearest",
        "sizes",
        [0, 0],
        [0, 0],
        mode,
        nearest,
        axes=OP.constant(np.array([2, 3])),
    )
    weight = OP.convert(OP.constant(constant(5, 12, 3, 3, dtype=np.float16)), "f32")
    return OP.convolution(larger, weight, [1, 1], [pads] * 2, [pads] * 2, [1, 1])


@pytest.mark.parametrize(
    ("mode", "nearest"),
    [
        ("asymmetric", "floor"),
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
    ],
)
def test_doubling_within_a_convolution_keeps_each_value_and_the_border(mode, nearest):
    x = OP.parameter([2, 12, 5, 7], np.float32, name="x")
    given = constant(2, 12, 5, 7)
    model = OV.Model([doubled(x, mode, nearest)], [x])
    stock, _ = computed(model, given)
    assert rewrite(OV, model) == 1
    ours, nodes = computed(model, given)
    assert layers(nodes, "Interpolate") == 0
    assert np.abs(ours - stock).max() < TOLERANCE * np.abs(stock).max()


def test_other_enlargements_are_left_alone():
    x = OP.parameter([2, 12, 5, 7], np.float32, name="x")
    for made in (doubled(x, scale=3), doubled(x, pads=0), doubled(x, "align_corners", "floor")):
        assert rewrite(OV, OV.Model([made], [x])) == 0
    read_twice = doubled(x)
    larger = read_twice.input_value(0)
    assert rewrite(OV, OV.Model([read_twice.output(0), larger], [x])) == 0


def test_what_does_not_match_is_left_alone():
    x = OP.parameter([2, 12, 4, 6], np.float32, name="x")
    along_channels = OV.Model([group_norm(x, 4, axis=1)], [x])
    assert rewrite(OV, along_channels) == 0
    y = OP.parameter([2, 9, 4, 4], np.float32, name="y")
    tokens = OP.reshape(y, OP.constant(np.array([2, 16, 9])), False)  # 9 channels, 16 tokens
    layer_norm = OP.mvn(tokens, OP.constant(np.array([2])), True, 1e-6, "INSIDE_SQRT")
    assert rewrite(OV, OV.Model([layer_norm], [y])) == 0
    uneven = OP.variadic_split(x, OP.constant(np.int64(3)), OP.constant(np.array([2, 4])))
    assert rewrite(OV, OV.Model([uneven.output(0)], [x])) == 0


def test_pockets_networks_change_in_each_place_and_in_no_value(tmp_path):
    bundle: Bundle = Shelf(tmp_path, tmp_path).open("pocket")
    shapes = {
        "unet": {"sample": [2, 4, 48, 48], "timestep": [], "encoder_hidden_states": [2, 32, 128]},
        "vae_decoder": {"latent_sample": [1, 4, 32, 32]},
    }
    for name, sizes in shapes.items():
        given = [np.float32(321.5) if not size else constant(*size) for size in sizes.values()]
        model = OV.Core().read_model(bundle.model(name))
        model.reshape(sizes)
        stock, before = computed(model, *given)
        rewrite(OV, model)
        ours, after = computed(model, *given)
        # Rounding of dozens of layers, one after the other: each place alone is held to TOLERANCE.
        assert np.abs(ours - stock).max() < 5 * TOLERANCE * np.abs(stock).max()
        # What it is for: convolutions keep their layout, nothing is copied there and back.
        assert len(copied(after)) < len(copied(before)) / 5
        if name == "unet":
            assert layers(after, "Split") < layers(before, "Split")
        norms = [node for node in after if node.get_rt_info()["layerType"].astype(str) == "MVN"]
        assert all(len(node.get_output_partial_shape(0)) == 3 for node in norms)  # layer norms
