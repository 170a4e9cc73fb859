"""The refiner of Stable Diffusion XL: it takes the last, least noisy part of a trajectory over.

It was trained on the lowest fifth of the timesteps alone (Podell et al., arXiv 2307.01952, section
2.5), so the change is counted in timesteps, as diffusers' denoising_end and denoising_start do, and
comes at the same noise level in every spacing. Sampler and table are the base's.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.loop import Denoise
from engine.moment import Moment
from engine.samplers import Table

if TYPE_CHECKING:
    from engine.bundle import Bundle

__all__ = ["FAMILY", "Handover", "check_refiner", "switch_step"]

Float32 = NDArray[np.float32]
BASE, FAMILY = "sdxl", "sdxl-refiner"


def check_refiner(base: "Bundle", refiner: "Bundle") -> None:
    """Raise BundleError where this refiner cannot finish what this base begins."""
    families = base.manifest.family, refiner.manifest.family
    if families[1] != FAMILY:
        raise BundleError(
            f"'{refiner.name}' is of family {families[1]}: it is no refiner",
            hint=f"one of family {FAMILY} is: `safelight models ls` names the families",
        )
    if families[0] != BASE:
        raise BundleError(
            f"'{base.name}' is of family {families[0]}; a refiner goes with one of family {BASE}"
        )
    levels = [bundle.training.sigmas for bundle in (base, refiner)]
    if levels[0].shape != levels[1].shape or not np.allclose(*levels, rtol=1e-6):
        raise BundleError(
            f"refiner '{refiner.name}' was trained at other noise levels than '{base.name}'"
        )


def switch_step(table: Table, timesteps: int, fraction: float) -> int:
    """Give the first step that is the refiner's: it begins where `fraction` of the training's
    `timesteps` lie behind; the number of steps where none does. A step is never divided.
    """
    bound = round(timesteps - fraction * timesteps)
    first = np.flatnonzero(np.diff(table.steps, prepend=-1))  # rows in which steps begin
    return int((table.timesteps[first] >= bound).sum())


class Handover:
    """Denoises with the base before step `step` of the trajectory, and from it with the refiner."""

    def __init__(self, base: Denoise, refiner: Denoise, step: int) -> None:
        self._base = base
        self._refiner = refiner
        self._step = step

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Denoise x f32[1, 4, h, w]."""
        denoise = self._base if moment.step < self._step else self._refiner
        return denoise(x, moment)
