"""The preview's map is found again when the decoder really is that map."""

import numpy as np

from export.preview import fit_latent_rgb

FACTORS = np.array([[0.1, 0.0, 0.05], [0.0, 0.08, 0.0], [-0.05, 0.02, 0.1], [0.03, -0.1, 0.0]])
BIAS = np.array([0.5, 0.45, 0.55])


def decode(latents: np.ndarray) -> np.ndarray:
    small = np.einsum("bchw,cr->brhw", latents, FACTORS) + BIAS[:, None, None]
    return (small.repeat(8, 2).repeat(8, 3) * 2 - 1).astype(np.float32)


def test_a_linear_decoder_is_found_exactly():
    latents = np.random.default_rng(3).standard_normal((1, 4, 6, 9)).astype(np.float32) / 4
    rgb = fit_latent_rgb(decode, latents)
    # Clipping to 0..1 touches a few values of the smooth noise, hence not closer.
    np.testing.assert_allclose(rgb.factors, FACTORS, atol=0.01)
    np.testing.assert_allclose(rgb.bias, BIAS, atol=0.01)
