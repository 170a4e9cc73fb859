"""The quality gate: a configuration's pictures against fp32's, with a bound for each precision.

Every configuration draws from the same seeds, and noise is made on the host, so that a PSNR means
the same on every machine. What is faster and draws something else has failed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.likeness import psnr, ssim

__all__ = ["BOUNDS", "Bound", "Likeness", "judge"]

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Bound:
    """The worst that passes. psnr: dB, of the worst picture. ssim: 1 is equal."""

    psnr: float
    ssim: float


# `pocket`, 20 steps, against fp32 of another library: fp32 65 dB, fp16 63, bf16 52 (all measured on
# bytes, which end at 59 dB where a third of them is off by one). int8 is refused by its own export
# below 30 dB. A changed sampler, schedule or prompt is below 25 dB.
BOUNDS: Final[Mapping[str, Bound]] = {
    "fp32": Bound(50.0, 0.995),
    "fp16": Bound(40.0, 0.98),
    "bf16": Bound(32.0, 0.95),
    "int8": Bound(28.0, 0.9),
}
# Random weights amplify rounding from step to step, as no trained model does.
AMPLIFIED: Final = 12.0  # dB that a bound is lower by, for models with random weights
BLURRED: Final = 0.1  # and of SSIM


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """The worst of the pictures compared, what was allowed, and the judgement."""

    psnr: float
    ssim: float
    bound: Bound
    pictures: int

    @property
    def passed(self) -> bool:
        """Say whether the worst picture is good enough; NaN is not."""
        return self.psnr >= self.bound.psnr and self.ssim >= self.bound.ssim


def judge(
    pictures: Sequence[UInt8], reference: Sequence[UInt8], precision: str, *, random: bool
) -> Likeness:
    """Compare pictures with the reference's of the same turns, uint8[H, W, 3] each.

    precision: whose bound holds; an unknown one has fp32's. random: the weights are.
    """
    bound = BOUNDS.get(precision, BOUNDS["fp32"])
    if random:
        bound = Bound(bound.psnr - AMPLIFIED, round(bound.ssim - BLURRED, 3))
    pairs = list(zip(pictures, reference, strict=True))
    same = all(one.shape == other.shape for one, other in pairs)
    return Likeness(
        psnr=min(psnr(*pair) for pair in pairs) if same else 0.0,
        ssim=min(ssim(*pair) for pair in pairs) if same else 0.0,
        bound=bound,
        pictures=len(pairs),
    )
