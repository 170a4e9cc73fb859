"""Align Your Steps: noise levels that were optimised for one model family at ten steps.

Sabour, Fidler and Kreis, "Align Your Steps", arXiv 2404.14507. The timesteps are those that the
authors publish for use with discrete models (research.nvidia.com/labs/toronto-ai/AlignYourSteps);
other counts of steps interpolate the logarithm of the noise level, as they say there.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import RequestError
from engine.training import Training

__all__ = ["NAME", "TIMESTEPS", "ays_sigmas"]

NAME: Final = "ays"
# Family -> where each of ten steps begins, and where the last one would end before noise is 0.
TIMESTEPS: Final[Mapping[str, tuple[int, ...]]] = {
    "sd1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}


def ays_sigmas(training: Training, steps: int) -> NDArray[np.float64]:
    """Lay `steps` levels on the published curve: f64[steps], falling, without the end.

    Raises RequestError for a model that no levels were published for.
    """
    knots = TIMESTEPS.get(training.family)
    if knots is None or training.prediction_type != "epsilon" or not _usual(training):
        raise RequestError(
            f"schedule '{NAME}' has no published noise levels for this model"
            f" (family {training.family}, prediction {training.prediction_type})",
            hint="there are some for sd1 and sdxl with their usual training and epsilon; karras"
            " serves others",
        )
    levels = np.log(training.sigmas[list(knots)])
    places = np.linspace(0.0, 1.0, len(knots))
    at = np.linspace(0.0, 1.0, steps + 1)[:-1]
    return np.exp(np.interp(at, places, levels))


def _usual(training: Training) -> bool:
    """Say whether the noise levels are those that both families were trained at."""
    usual, own = Training().sigmas, training.sigmas
    # trained_betas in a file are float32
    return len(own) == len(usual) and np.allclose(own, usual, rtol=1e-4, atol=0.0)
