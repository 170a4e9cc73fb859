"""From a picture to latents: what img2img and inpainting begin with.

The VAE's encoder gives a normal distribution for every latent (Kingma and Welling, arXiv
1312.6114): its mean, or a sample of it, times the scaling factor is what the unet was trained on.
Arithmetic and the order of draws are diffusers' (VaeImageProcessor, DiagonalGaussianDistribution).
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.backends import Session
    from engine.loop import NoiseSource

__all__ = ["COMPONENT", "INPUT", "MEAN", "encode", "encode_sample", "to_latents", "to_sample"]

Float32 = NDArray[np.float32]
COMPONENT = "vae_encoder"
INPUT = "sample"
LOG_VARIANCES = (-30.0, 20.0)  # beyond these the reference cuts what the network says


class _Mean:
    """Noise that is none, so that a sample of the distribution is its mean."""

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Give zeros f32[shape]."""
        return np.zeros(shape, np.float32)


MEAN = _Mean()


def encode(
    pixels: NDArray[np.uint8],
    session: "Session",
    scaling_factor: float,
    *,
    noise: "NoiseSource" = MEAN,
    channels: int = 4,
) -> Float32:
    """Encode uint8[H, W, 3] into latents f32[1, channels, H/8, W/8], as the unet takes them.

    session: of the vae_encoder, loaded for f32[1, 3, H, W]. noise: what a sample is drawn with, by
    one call; diffusers' img2img draws it before the noise of the steps, from the same generator.
    MEAN draws nothing. Raises BundleError where the network gives something else, DeviceError.
    """
    return encode_sample(to_sample(pixels), session, scaling_factor, noise=noise, channels=channels)


def encode_sample(
    sample: Float32,
    session: "Session",
    scaling_factor: float,
    *,
    noise: "NoiseSource" = MEAN,
    channels: int = 4,
) -> Float32:
    """Encode f32[1, 3, H, W] in -1..1 as `encode` does: for a picture whose masked part is 0."""
    return to_latents(session.run({INPUT: sample}), scaling_factor, noise=noise, channels=channels)


def to_sample(pixels: NDArray[np.uint8]) -> Float32:
    """Turn uint8[H, W, 3] into f32[1, 3, H, W] in -1..1."""
    sample = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)
    sample /= np.float32(255.0)
    sample *= np.float32(2.0)
    sample -= np.float32(1.0)
    return sample


def to_latents(
    parameters: Float32, scaling_factor: float, *, noise: "NoiseSource" = MEAN, channels: int = 4
) -> Float32:
    """Draw latents f32[1, C, h, w] from what the encoder gave.

    parameters: f32[1, 2 C, h, w], means and then the logarithms of variances; or f32[1, C, h, w],
    latents already, which the tiny encoder and some exports give: nothing is drawn then.
    """
    if parameters.ndim != 4 or parameters.shape[:2] not in ((1, 2 * channels), (1, channels)):
        raise BundleError(
            f"the encoder gives {parameters.shape}; (1, {2 * channels}, height, width) was expected"
        )
    if parameters.shape[1] == channels:
        return parameters * np.float32(scaling_factor)
    mean, log_variance = parameters[:, :channels], parameters[:, channels:]
    spread = np.exp(np.float32(0.5) * np.clip(log_variance, *LOG_VARIANCES))
    latents = mean + spread * noise.normal(mean.shape)
    latents *= np.float32(scaling_factor)
    return latents
