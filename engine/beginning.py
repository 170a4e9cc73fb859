"""How a pass begins: clean latents, the noise on them, and what stays as it is meanwhile.

Pieces of noise are drawn from the picture's one stream in diffusers' order, so that a seed gives
diffusers' picture: the init picture's sample, the first noise, the masked picture's sample, and
then what the sampler adds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.encoding import MEAN, to_sample
from engine.loop import NoiseSource
from engine.modes import INPAINT, TXT2IMG, Pass, mode_of
from engine.noise import noise_source, turned
from engine.painting import latent_mask, masked_sample
from engine.repairs import ENCODE_REPAIR, HIRES_REPAIR, decode_fitting, whole_or_tiled
from engine.resample import resize
from engine.tiling import is_tiled

if TYPE_CHECKING:
    from engine.stages import Stages
    from engine.trajectory import Job

__all__ = ["Beginning", "begin"]

Float32 = NDArray[np.float32]
NOTHING = np.zeros((1, 0, 0, 0), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """start: clean latents f32[p, 4, h, w] of the pictures drawn at once. noise: gives the first
    noise, and then the sampler's.

    beside: f32[p, k, h, w] that an inpainting unet sees beside the latents, k of 0 for others.
    mask: f32[1, 1, h, w], 1 where latents are drawn; where it is 0 `known`, f32[p, 4, h, w], is put
    back after each row, under the first noise. Empty: everything is drawn.
    """

    start: Float32
    noise: NoiseSource
    first: Float32
    beside: Float32
    mask: Float32
    known: Float32

    def keep(self, x: Float32, sigma: float) -> None:
        """Put back, in x at noise level sigma, what is not painted over."""
        if self.mask.size:
            around = self.known + np.float32(sigma) * self.first
            np.copyto(x, self.mask * x + (np.float32(1.0) - self.mask) * around)


def begin(job: "Job", this: Pass, stages: "Stages", before: Float32) -> Beginning:
    """Prepare a pass for one picture. before: f32[1, 4, h, w], the result of the pass before; empty
    for the first.

    Raises BundleError where the bundle has no encoder and one is needed, and Cancelled.
    """
    request, inputs = job.request, job.inputs
    manifest = stages.bundle.manifest
    stream = noise_source(request.noise, request.seed)
    shape = stages.components.latent_shape(this.height, this.width)
    mode = mode_of(inputs)
    shown = manifest.unet_channels != manifest.latent_channels  # the unet is for inpainting
    start = known = np.zeros(shape, dtype=np.float32)
    if before.size:
        start = _enlarged(job, this, stages, before)
    elif mode != TXT2IMG and not (shown and this.from_noise):
        known = _encoded(job, this, stages, to_sample(inputs.init), stream)
        start = start if this.from_noise else known
    first = stream.normal(shape)
    if request.variation_strength:
        other = noise_source(request.noise, request.variation_seed).normal(shape)
        first = turned(first, other, request.variation_strength)
    beside, mask = NOTHING, NOTHING
    if mode == INPAINT:
        mask = latent_mask(inputs.mask, manifest.vae_scale_factor)
        if shown:
            around = _encoded(job, this, stages, masked_sample(inputs.init, inputs.mask), stream)
            beside, mask = np.concatenate([mask, around], axis=1), NOTHING
        else:
            stream.normal(shape)  # diffusers encodes the masked picture for either
    return Beginning(
        start=start,
        noise=_Continued(first, stream),
        first=first,
        beside=beside,
        mask=mask,
        known=known,
    )


def _enlarged(job: "Job", this: Pass, stages: "Stages", latents: Float32) -> Float32:
    if job.request.hires_upscaler == "latent":
        factor = stages.bundle.manifest.vae_scale_factor
        return resize(latents, this.height // factor, this.width // factor, "bilinear")
    tiled = is_tiled(job.request.vae_tiling, job.passes[0].width, job.passes[0].height)
    decoded, in_tiles = decode_fitting(
        job.decoder, latents, stages, tiled=tiled, progress=job.stop_if_cancelled
    )
    if in_tiles and not tiled:
        job.repaired(HIRES_REPAIR)
    picture = np.clip(resize(decoded, this.height, this.width, "lanczos"), -1.0, 1.0)
    return _encoded(job, this, stages, picture, MEAN)


def _encoded(
    job: "Job", this: Pass, stages: "Stages", sample: Float32, noise: NoiseSource
) -> Float32:
    """Encode f32[1, 3, H, W] in -1..1 into latents, in tiles where the whole does not fit."""
    tiled = is_tiled(job.request.vae_tiling, this.width, this.height)
    latents, in_tiles = whole_or_tiled(
        lambda tiles: stages.encode_sample(
            sample, noise=noise, tiled=tiles, progress=job.stop_if_cancelled
        ),
        tiled=tiled,
    )
    if in_tiles and not tiled:
        job.repaired(ENCODE_REPAIR)
    return latents


class _Continued:
    """A stream whose first piece is there already."""

    def __init__(self, first: Float32, rest: NoiseSource) -> None:
        self._draw: Callable[[tuple[int, ...]], Float32] = self._given
        self._first = first
        self._rest = rest

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Give the next piece f32[shape]."""
        return self._draw(shape)

    def _given(self, shape: tuple[int, ...]) -> Float32:
        self._draw = self._rest.normal
        return self._first.reshape(shape)
