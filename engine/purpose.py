"""What a bundle is for: upscalers, ControlNets and refiners draw no picture by themselves."""

from engine.errors import BundleError
from engine.manifest import UPSCALER, Manifest

__all__ = ["check_draws"]

MAX_GUIDANCE_DIM = 65_536  # numbers; known models have 256


def check_draws(manifest: Manifest) -> None:
    """Raise BundleError for a bundle that makes no picture from text alone."""
    if manifest.family == UPSCALER:
        raise BundleError(
            f"'{manifest.name}' is an upscaler, which draws no pictures",
            hint="it enlarges what a model draws: `safelight generate --upscaler`",
        )
    if manifest.add_on:
        raise BundleError(
            f"'{manifest.name}' is of family {manifest.family}: it draws no picture alone",
            hint="it steers a Stable Diffusion model: `safelight generate --control`",
        )
    if manifest.guidance_dim and not 4 <= manifest.guidance_dim <= MAX_GUIDANCE_DIM:
        raise BundleError(
            f"the unet of '{manifest.name}' takes a guidance scale in {manifest.guidance_dim}"
            f" numbers; from 4 to {MAX_GUIDANCE_DIM} can be made"
        )
    if manifest.family == "sdxl-refiner":
        raise BundleError(
            f"'{manifest.name}' is a refiner: it finishes the latents of a Stable Diffusion XL"
            " and draws nothing by itself",
            hint="draw with the base model: `safelight generate --refiner`",
        )
