"""Resampling equals torch's and Pillow's; a blur keeps what it should."""

import numpy as np
import pytest
import torch
from PIL import Image

from engine.resample import blur, resize

DRAW = np.random.default_rng(2)


@pytest.mark.parametrize("size", [(24, 40), (7, 9), (16, 12), (33, 5)])
def test_bilinear_is_torchs_with_antialiasing(size):
    values = DRAW.standard_normal((1, 4, 16, 12)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values), size=size, mode="bilinear", antialias=True
    )
    # float32 sums of at most six weights
    assert np.abs(resize(values, *size, "bilinear") - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("size", [(24, 40), (7, 9)])
def test_lanczos_is_pillows(size):
    values = DRAW.standard_normal((16, 12)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.LANCZOS))
    assert np.abs(resize(values, *size, "lanczos") - expected).max() < 1e-5


def test_a_blur_keeps_flat_areas_and_reaches_three_deviations():
    values = np.zeros((40, 40), np.float32)
    values[20:] = 1.0
    blurred = blur(values, 2.0)
    assert np.allclose(blurred[:14], 0.0)
    assert np.allclose(blurred[26:], 1.0)
    assert blurred[19, 0] + blurred[20, 0] == pytest.approx(1.0, abs=1e-6)  # symmetric at the edge
    assert np.array_equal(blur(values, 0.0), values)
