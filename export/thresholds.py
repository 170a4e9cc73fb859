"""What the parity gate lets pass, in one table, and the judgement itself. No torch here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from engine.manifest import Measure
from export.errors import ParityError

__all__ = ["THRESHOLDS", "Bound", "bounds_of", "judge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The worst that is accepted, in the units of `engine.manifest.Measure`."""

    max_abs: float
    cosine: float
    psnr: float


# Both precisions store weights without loss and compute in fp32, so what remains is the order of
# additions. Measured: pocket 2e-6 and 132 dB a component, 4e-6 and 128 dB a picture after 4 guided
# steps; random weights, which amplify more, 3e-6 and 130 dB, then 5e-4 and 89 dB.
EXACT = Bound(max_abs=1e-4, cosine=0.99999, psnr=90.0)
DRIFTED = Bound(max_abs=1e-2, cosine=0.9999, psnr=60.0)
SUBJECTS = {
    "text_encoder": EXACT,
    "text_encoder_2": EXACT,
    "unet": EXACT,
    "unet_control": EXACT,
    "unet_deep": EXACT,
    "unet_shallow": EXACT,
    "unet_thin": EXACT,
    "controlnet": EXACT,
    "vae_decoder": EXACT,
    "vae_encoder": EXACT,
    "tiny_vae_decoder": EXACT,
    "tiny_vae_encoder": EXACT,
    "safety_checker": EXACT,
    "trajectory": DRIFTED,
    "picture": DRIFTED,
}
WHOLE = ("trajectory", "picture")
THRESHOLDS: Mapping[str, Mapping[str, Bound]] = {"fp16": SUBJECTS, "fp32": SUBJECTS}


def bounds_of(table: Mapping[str, Bound], parts: Collection[str]) -> dict[str, Bound]:
    """Give the bounds of the components that a family has, and of the whole."""
    whole = WHOLE if "vae_decoder" in parts else ()  # others draw no picture
    return {name: bound for name, bound in table.items() if name in {*parts, *whole}}


def judge(measures: tuple[Measure, ...], bounds: Mapping[str, Bound]) -> None:
    """Raise ParityError naming the first measure outside its bound, or a subject not measured."""
    for measure in measures:
        bound = bounds[measure.subject]
        good = (
            measure.max_abs <= bound.max_abs
            and measure.cosine >= bound.cosine
            and measure.psnr >= bound.psnr
        )
        if not good:  # NaN fails here as well
            raise ParityError(
                f"{measure.subject} by {measure.runtime} is not what the checkpoint computes:"
                f" error {measure.max_abs:.3g} (at most {bound.max_abs:g}), cosine"
                f" {measure.cosine:.6f} (at least {bound.cosine:g}), PSNR {measure.psnr:.1f} dB"
                f" (at least {bound.psnr:g})",
                hint="nothing was kept; this is a fault of the exporter or of a library's version",
            )
    missing = set(bounds) - {measure.subject for measure in measures}
    if missing:
        raise ParityError(f"the gate did not measure {', '.join(sorted(missing))}")
