"""One ControlNet of a request: which, how strongly, and over which part of the trajectory."""

from dataclasses import dataclass

from engine.errors import RequestError
from engine.moment import Moment

__all__ = ["MAX_CONTROLS", "MAX_SCALE", "Control"]

MAX_CONTROLS = 8  # networks as large as half a unet, each held in memory
MAX_SCALE = 2.0  # as interfaces offer it; beyond it pictures fall apart
MAX_NAME = 64  # characters of a bundle's name


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Steer by the ControlNet in bundle `model` (Zhang et al., arXiv 2302.05543).

    scale: of what it adds, 0 (nothing) to 2. start, end: fractions of the steps between which it
    acts, 0 to 1. Raises RequestError on the first value that is not acceptable.
    """

    model: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Check every field once, at the border."""
        if not 0 < len(self.model) <= MAX_NAME:
            raise RequestError(
                f"a ControlNet's name has {len(self.model)} characters; 1 to {MAX_NAME} are allowed"
            )
        if not 0.0 <= self.scale <= MAX_SCALE:  # NaN fails here as well
            raise RequestError(
                f"the scale of ControlNet '{self.model}' is {self.scale}; from 0 to {MAX_SCALE:g}"
                " is allowed"
            )
        if not 0.0 <= self.start < self.end <= 1.0:
            raise RequestError(
                f"ControlNet '{self.model}' acts from {self.start} to {self.end}; 0 to 1 is"
                " allowed, the start before the end",
                hint="fractions of the steps: 0 and 1 are all of them",
            )

    def acts_at(self, moment: Moment) -> bool:
        """Say whether it acts in this step: the whole step lies between start and end, as diffusers
        counts control_guidance_start and control_guidance_end.
        """
        begins, ends = moment.fraction, (moment.step + 1) / moment.steps
        return self.scale > 0.0 and self.start <= begins and ends <= self.end
