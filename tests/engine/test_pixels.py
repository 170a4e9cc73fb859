"""The last step to pixels rounds as diffusers does; the preview is a bounded linear map."""

import warnings

import numpy as np
import torch

from engine.manifest import LatentRgb
from engine.pixels import preview, to_pixels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers.image_processor import VaeImageProcessor


def by_diffusers(decoded):
    (picture,) = VaeImageProcessor().postprocess(torch.from_numpy(decoded), output_type="pil")
    return np.asarray(picture)


def test_pixels_equal_diffusers_on_every_level_and_beyond_the_range():
    # k / 510 hits every level and every half between two levels, where rounding decides
    grid = np.arange(-60, 571, dtype=np.float64)[: 3 * 8 * 26] / 510 * 2 - 1
    decoded = np.resize(grid, (1, 3, 8, 26)).astype(np.float32)
    assert np.array_equal(to_pixels(decoded), by_diffusers(decoded))
    random = np.random.default_rng(3).standard_normal((1, 3, 64, 32), dtype=np.float32)
    got = to_pixels(random)
    assert np.array_equal(got, by_diffusers(random))
    assert got.shape == (64, 32, 3)
    assert got.flags.c_contiguous


def test_the_decoders_buffer_is_left_alone():
    decoded = np.full((1, 3, 8, 8), 0.5, dtype=np.float32)
    to_pixels(decoded)
    assert (decoded == 0.5).all()


RGB = LatentRgb(
    factors=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.25, 0.25, 0.25)),
    bias=(0.5, 0.25, 0.0),
)


def test_a_preview_is_the_linear_map_in_colours():
    latents = np.zeros((1, 4, 2, 3), dtype=np.float32)
    assert (preview(latents, RGB) == np.array([128, 64, 0])).all()  # 127.5 to even
    latents[0, 3, 0, 2] = 1.0
    assert (preview(latents, RGB)[0, 2] == np.array([191, 128, 64])).all()
    latents[0, 0, 1, 0] = -9.0
    latents[0, 2, 1, 1] = 9.0
    got = preview(latents, RGB)
    assert got[1, 0, 0] == 0
    assert got[1, 1, 2] == 255
    assert got.shape == (2, 3, 3)


def test_a_preview_of_what_overflowed_is_still_a_picture():
    latents = np.full((1, 4, 2, 2), np.nan, dtype=np.float32)
    latents[0, 0, 0, 0] = np.inf
    assert preview(latents, RGB).dtype == np.uint8
