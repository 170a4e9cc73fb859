"""Weights kept in bf16: rounded as the plugin rounds them, so that nothing else changes."""

import ml_dtypes
import numpy as np
import pytest

from engine.backends.openvino import runtime
from engine.backends.weights import round_to_bf16, weights_to_bf16

OV = runtime()
OP = OV.opset13
DRAW = np.random.default_rng(5)
BF16 = "BF16" in OV.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def constant(*shape, dtype=np.float32):
    return OP.constant(DRAW.standard_normal(shape).astype(dtype))


def network(dtype=np.float32):
    """Give a graph with a linear layer, a convolution and a transposed one, weights of `dtype`."""

    def weights(*shape):
        kept = constant(*shape, dtype=dtype)
        return kept if dtype == np.float32 else OP.convert(kept, "f32")

    x = OP.parameter([1, 256, 64], np.float32, name="x")
    linear = OP.relu(OP.matmul(x, weights(64, 64), False, True))
    pixels = OP.reshape(linear, OP.constant(np.array([1, 64, 16, 16])), False)
    one, none = [1, 1], [0, 0]
    seen = OP.convolution(pixels, weights(64, 64, 3, 3), one, one, one, one)
    large = OP.convolution_backprop_data(seen, weights(64, 32, 2, 2), [2, 2], none, none, one)
    return OV.Model([large], [x])


def compiled(model):
    return OV.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})


def test_every_bit_pattern_is_rounded_as_by_ml_dtypes():
    top = np.arange(1 << 16, dtype=np.uint32) << 16
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):  # on a value, beside it, about the tie
        values = (top | np.uint32(low)).view(np.float32)
        got = round_to_bf16(values).view(ml_dtypes.bfloat16)
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = values.astype(ml_dtypes.bfloat16)
        numbers = ~np.isnan(values)
        assert np.isnan(got[~numbers]).all()
        np.testing.assert_array_equal(got[numbers].view(np.uint16), wanted[numbers].view(np.uint16))


@pytest.mark.skipif(not BF16, reason="the processor has no bf16 arithmetic")
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_results_are_the_same_bits_from_a_file_of_half_the_size(dtype):
    given = DRAW.standard_normal((1, 256, 64)).astype(np.float32)
    model = network(dtype)
    stock = compiled(model)
    before, size = stock([given])[0].copy(), len(stock.export_model().getvalue())
    assert weights_to_bf16(OV, model) == 3
    ours = compiled(model)
    np.testing.assert_array_equal(ours([given])[0], before)
    saved = size - len(ours.export_model().getvalue())
    weights = 64 * 64 + 64 * 64 * 9 + 64 * 32 * 4
    assert 0.9 * 2 * weights < saved <= 2 * weights  # two bytes each, less the nodes that widen


def test_what_is_not_a_products_weight_alone_stays_as_it_is():
    x = OP.parameter([1, 64, 64], np.float32, name="x")
    shared, small, added = constant(64, 64), constant(64, 15), constant(1, 64, 64)
    product = OP.add(OP.matmul(x, shared, False, False), added)
    product = OP.multiply(product, shared)  # not by a product: the plugin may keep this in f32
    table = OP.gather(constant(100, 64), OP.constant(np.array([3, 5])), OP.constant(np.int64(0)))
    model = OV.Model([OP.matmul(product, small, False, False), table], [x])
    assert weights_to_bf16(OV, model) == 0
    assert all(node.get_element_type() != OV.Type.bf16 for node in model.get_ops())
