"""Noise against torch's own generator, and against the published values of its CUDA one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.noise import noise_source

# float32 sines and logarithms differ by a few last bits from library to library
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def torch_generator(seed):
    # manual_seed takes a signed number for seeds of 2**63 and more
    return torch.Generator().manual_seed(seed if seed < 2**63 else seed - 2**64)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1, 2**64 - 1])
def test_torch_stream_equals_torch(seed):
    generator, source = torch_generator(seed), noise_source("torch", seed)
    for shape in ((1, 4, 64, 64), (1, 4, 8, 8), (1, 4, 16, 24), (3,), (1, 4, 13, 17), (2, 5)):
        expected = torch.randn(shape, generator=generator).numpy()
        got = source.normal(shape)
        assert got.dtype == np.float32
        assert got.shape == shape
        np.testing.assert_allclose(got, expected, **CLOSE)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.integers(0, 2**64 - 1))
def test_torch_stream_survives_any_sequence_of_sizes(sizes, seed):
    """Below 16 values torch keeps half of a pair for later; from 16 on it redraws the tail."""
    generator, source = torch_generator(seed), noise_source("torch", seed)
    for size in sizes:
        expected = torch.randn(size, generator=generator).numpy()
        np.testing.assert_allclose(source.normal((size,)), expected, **CLOSE)


def test_torch_uses_32_bits_of_the_seed():
    low, high = noise_source("torch", 7), noise_source("torch", 7 + 2**32)
    assert np.array_equal(low.normal((20,)), high.normal((20,)))


def test_philox_equals_the_published_values_of_a_card():
    """torch.randn(3, 4) on CUDA with seed 0, as web user interfaces print it in their sources."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    got = noise_source("philox", 0).normal((3, 4))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, **CLOSE)


def test_philox_uses_64_bits_of_the_seed_and_moves_on():
    first = noise_source("philox", 7).normal((16,))
    assert not np.array_equal(first, noise_source("philox", 7 + 2**32).normal((16,)))
    source = noise_source("philox", 7)
    assert np.array_equal(source.normal((16,)), first)
    assert not np.array_equal(source.normal((16,)), first)
    # a longer draw begins with the same values: value i belongs to thread i
    assert np.array_equal(noise_source("philox", 7).normal((64,))[:16], first)


@pytest.mark.parametrize("name", ["philox", "torch"])
def test_noise_is_unit_normal(name):
    values = noise_source(name, 3).normal((200_000,)).astype(np.float64)
    assert abs(values.mean()) < 4 / math.sqrt(200_000)
    assert abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("name", ["philox", "torch"])
def test_sources_are_independent_of_each_other(name):
    """A picture's noise does not depend on what else is drawn at the same time."""
    alone = noise_source(name, 5)
    expected = [alone.normal((1, 4, 8, 8)) for _ in range(3)]
    one, other = noise_source(name, 5), noise_source(name, 6)
    for piece in expected:
        assert np.array_equal(one.normal((1, 4, 8, 8)), piece)
        other.normal((7,))


def test_what_is_no_source_is_refused():
    with pytest.raises(RequestError, match="did you mean 'torch'"):
        noise_source("torhc", 0)
    for seed in (-1, 2**64):
        with pytest.raises(RequestError, match="seed"):
            noise_source("torch", seed)
