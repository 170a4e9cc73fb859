"""Spacings: which noise levels a sampler visits, and what the network is told there.

A schedule is made from the training's noise levels, a number of steps, the spacing's name and the
sampler's name, because the scheduler that each sampler is known by lays the same spacing in its own
way: with whole or broken timesteps, with n points or the inner ends of n intervals, ending at zero
or at the training minimum. Those habits are data here (`CONVENTIONS`), so that a seed gives the
picture that diffusers gives.

Sources: timestep spacings arXiv 2305.08891 table 2; karras arXiv 2206.00364 equation 5; beta
arXiv 2407.12173; ays arXiv 2404.14507; sgm_uniform is the discretisation of Stability's
generative-models.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from engine.ays import ays_sigmas
from engine.beta import beta_quantile
from engine.errors import RequestError, unknown_name
from engine.training import PREDICTION_TYPES, Training

__all__ = [
    "CONVENTIONS",
    "PREDICTION_TYPES",
    "SPACINGS",
    "Convention",
    "Schedule",
    "Training",
    "schedule",
]

Float64 = NDArray[np.float64]

SPACINGS: Final = (
    "ays",
    "beta",
    "exponential",
    "karras",
    "leading",
    "linspace",
    "sgm_uniform",
    "trailing",
)
_BY_TIMESTEP: Final = ("leading", "linspace", "trailing")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A spacing of the training noise levels.

    sigmas: f64[steps + 1], falling, the last one 0 (or the training minimum where the scheduler
    configuration asks for it). timesteps: f64[steps], what the network is told at sigmas[:-1].
    initial_scale: latents = noise * initial_scale at the first row. earlier: steps that were laid
    and left out before these.
    """

    sigmas: Float64
    timesteps: Float64
    initial_scale: float
    earlier: int = 0

    def last(self, steps: int) -> "Schedule":
        """Keep the last steps alone, for latents that are noised to where these begin."""
        return Schedule(
            sigmas=self.sigmas[-steps - 1 :],
            timesteps=self.timesteps[-steps:],
            initial_scale=float(self.sigmas[-steps - 1]),
            earlier=self.earlier + len(self.timesteps) - steps,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Convention:
    """How the scheduler that a sampler is known by lays its timesteps.

    layout: `points` has n timesteps over the training range, `intervals` the first n of n + 1,
    `consistency` every k-th of the timesteps that a latent consistency model was distilled at.
    whole: timesteps are rounded to integers. variance_preserving: latents start as plain noise and
    live at x / sqrt(sigma**2 + 1). final: where the last step ends; `zero`, `sigmas_type` (as
    final_sigmas_type says), `alpha` (as set_alpha_to_one says) or `lowest` (the training's).
    """

    layout: Literal["consistency", "intervals", "points"]
    whole: bool
    variance_preserving: bool
    final: Literal["alpha", "lowest", "sigmas_type", "zero"]


_DPM: Final = Convention(
    layout="intervals", whole=True, variance_preserving=True, final="sigmas_type"
)
_EULER: Final = Convention(
    layout="points", whole=False, variance_preserving=False, final="sigmas_type"
)
_PLAIN: Final = Convention(layout="points", whole=False, variance_preserving=False, final="zero")
_DDIM: Final = Convention(layout="points", whole=True, variance_preserving=True, final="alpha")
CONVENTIONS: Final[Mapping[str, Convention]] = {
    "ddim": _DDIM,
    "ddpm": Convention(layout="points", whole=True, variance_preserving=True, final="zero"),
    "deis": Convention(layout="intervals", whole=True, variance_preserving=True, final="lowest"),
    "dpm2": _PLAIN,
    "dpm2_a": _PLAIN,
    "dpmpp_2m": _DPM,
    "dpmpp_2m_sde": _DPM,
    "dpmpp_2s_a": _PLAIN,
    "dpmpp_3m_sde": _PLAIN,
    "dpmpp_sde": _PLAIN,
    "euler": _EULER,
    "euler_a": _PLAIN,
    "heun": _PLAIN,
    "lcm": Convention(layout="consistency", whole=True, variance_preserving=True, final="zero"),
    "lms": _PLAIN,
    "pndm": _DDIM,
    "tcd": Convention(layout="consistency", whole=True, variance_preserving=True, final="lowest"),
    "unipc": _DPM,
}


def schedule(name: str, training: Training, steps: int, sampler: str) -> Schedule:
    """Lay `steps` noise levels by the spacing `name`, as the scheduler behind `sampler` does.

    Raises RequestError for an unknown name, where the training has no `steps` distinct levels, and
    for `ays` where none were published.
    """
    if name not in SPACINGS:
        raise unknown_name("schedule", name, SPACINGS)
    if sampler not in CONVENTIONS:
        raise unknown_name("sampler", sampler, tuple(CONVENTIONS))
    convention = CONVENTIONS[sampler]
    if not 1 <= steps <= training.num_train_timesteps:
        raise RequestError(
            f"steps is {steps}; from 1 to {training.num_train_timesteps} is allowed",
            hint="the model was trained at that many noise levels",
        )
    if name in _BY_TIMESTEP:
        timesteps = _timesteps(name, training, steps, convention)
        sigmas = _sigma_at(training, timesteps)
    elif name == "sgm_uniform":
        timesteps = np.linspace(training.num_train_timesteps - 1, 0, steps + 1)[:-1]
        sigmas = np.exp(_interpolate(timesteps, np.log(training.sigmas)))
    elif name == "ays":
        sigmas = ays_sigmas(training, steps)
        timesteps = _timestep_at(training, sigmas)
        if convention.whole:  # the published timesteps are, and levels between them follow
            timesteps = np.round(timesteps)
            sigmas = _sigma_at(training, timesteps)
    else:
        sigmas = _by_sigma(name, *_range(training, steps, convention), steps)
        timesteps = _round(name, training, _timestep_at(training, sigmas), convention)
    sigmas = np.append(sigmas, _final(name, training, convention))
    _must_fall(sigmas, name, sampler, steps)
    return Schedule(
        sigmas=sigmas,
        timesteps=timesteps,
        initial_scale=_initial_scale(name, training, float(sigmas[0]), convention),
    )


def _timesteps(name: str, training: Training, steps: int, convention: Convention) -> Float64:
    """Lay timesteps evenly: f64[steps], falling; table 2 of arXiv 2305.08891."""
    total = training.num_train_timesteps
    if convention.layout == "consistency":
        return _consistency_timesteps(training, steps)
    points = steps + 1 if convention.layout == "intervals" else steps
    if name == "trailing":
        # arange's own rounding decides where a level lies half-way between two timesteps
        return np.round(np.arange(total, 0, -total / steps)[:steps]) - 1.0
    if name == "leading":
        rising = np.arange(points, dtype=np.float64) * (total // points) + training.steps_offset
    else:
        rising = np.linspace(0, total - 1, points)
        rising = np.round(rising) if convention.whole else rising
    return rising[::-1][:steps].astype(np.float64)


def _consistency_timesteps(training: Training, steps: int) -> Float64:
    """Take `steps` of the timesteps of distillation, evenly by index: arXiv 2310.04378, 4.3.

    The spacing's name has no say here: away from those timesteps the model was never trained.
    """
    distilled = training.original_inference_steps
    if steps > distilled:
        raise RequestError(
            f"steps is {steps}; a consistency model takes at most {distilled}",
            hint="it needs 1 to 8",
        )
    levels = np.arange(distilled, 0, -1) * (training.num_train_timesteps // distilled) - 1
    chosen = np.floor(np.linspace(0, distilled, steps, endpoint=False)).astype(np.int64)
    return levels[chosen].astype(np.float64)


def _range(training: Training, steps: int, convention: Convention) -> tuple[float, float]:
    """Find the highest and the lowest noise level that a spacing by sigma runs between."""
    sigmas = training.sigmas
    if convention.variance_preserving:
        return float(sigmas[-1]), float(sigmas[0])
    # diffusers' Euler family takes the ends of the configured spacing, not of the training
    ends = _sigma_at(training, _timesteps(training.timestep_spacing, training, steps, convention))
    return float(ends[0]), float(ends[-1])


def _by_sigma(name: str, high: float, low: float, steps: int) -> Float64:
    """Lay noise levels from `high` to `low` by a law of their own: f64[steps], falling."""
    ramp = np.linspace(0, 1, steps)
    if name == "karras":
        rho = 7.0  # the paper's value
        levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    elif name == "exponential":
        levels = np.exp(np.linspace(math.log(high), math.log(low), steps))
    else:
        shape = 0.6  # both parameters of the distribution, the paper's value
        levels = low + beta_quantile(1.0 - ramp, shape) * (high - low)
    levels[-1], levels[0] = low, high  # to the last bit: the step after may end at `low` as well
    return levels


def _round(name: str, training: Training, timesteps: Float64, convention: Convention) -> Float64:
    """Make timesteps whole where the scheduler hands its network integers."""
    if convention.layout != "intervals":
        return timesteps
    if name == "karras" and training.beta_schedule != "squaredcos_cap_v2":
        return np.round(timesteps)
    # a cast to integer; the allowance keeps a level that is whole but for rounding errors
    return np.floor(timesteps + 1e-6)


def _final(name: str, training: Training, convention: Convention) -> float:
    """Say where the last step ends: 0, or the lowest level of the training."""
    lowest = float(training.sigmas[0])
    if convention.final == "lowest" or (
        convention.final == "sigmas_type" and training.final_sigmas_type == "sigma_min"
    ):
        return lowest
    # the other spacings of ddim are not diffusers' own and may reach that level by themselves
    ends_above = name in ("leading", "trailing") and not training.set_alpha_to_one
    return lowest if convention.final == "alpha" and ends_above else 0.0


def _initial_scale(name: str, training: Training, high: float, convention: Convention) -> float:
    """Scale unit noise to the first level; diffusers adds the missing signal's variance or not."""
    spacing = name if name in (*_BY_TIMESTEP, "sgm_uniform") else training.timestep_spacing
    if convention.variance_preserving or spacing == "leading":
        return float(np.sqrt(high**2 + 1.0))
    return high


def _sigma_at(training: Training, timesteps: Float64) -> Float64:
    return _interpolate(timesteps, training.sigmas)


def _interpolate(at: Float64, values: Float64) -> Float64:
    return np.interp(at, np.arange(len(values)), values)


def _timestep_at(training: Training, sigmas: Float64) -> Float64:
    """Find the timesteps of noise levels, linear in log sigma between the trained ones."""
    return np.interp(np.log(sigmas), np.log(training.sigmas), np.arange(len(training.sigmas)))


def _must_fall(sigmas: Float64, name: str, sampler: str, steps: int) -> None:
    # The last step alone may stand still: `sigma_min` repeats the lowest level of some spacings.
    if not (np.diff(sigmas[:-1]) < 0).all() or sigmas[-1] > sigmas[-2]:
        raise RequestError(
            f"schedule '{name}' has no {steps} distinct noise levels for sampler '{sampler}'",
            hint="take fewer steps or another schedule",
        )
