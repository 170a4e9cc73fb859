"""Euler's method, its ancestral form and DDIM: one straight step along the ODE, then fresh noise.

In the space x = x0 + sigma * eps the three are one formula; they differ in where noise enters.
"""

import math

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["ancestral", "euler"]


def euler(schedule: Schedule, options: Options) -> list[Row]:  # noqa: ARG001 - one signature
    """Step x' = x + (sigma' - sigma) * (x - denoised) / sigma: arXiv 2206.00364, algorithm 1."""
    return [
        _straight(schedule, step, float(sigma_next), 0.0)
        for step, sigma_next in enumerate(schedule.sigmas[1:])
    ]


def ancestral(schedule: Schedule, options: Options) -> list[Row]:
    """Step further down than asked and add noise up to the level again, as much as eta says.

    With eta 1 this is k-diffusion's ancestral Euler. DDIM, arXiv 2010.02502 equations 12 and 16,
    is the same formula: with a = 1 / (1 + sigma**2), its noise of variance
    eta**2 * (1 - a') / (1 - a) * (1 - a / a') is `up**2 * a'` here.
    """
    rows = list[Row]()
    for step, (sigma, sigma_next) in enumerate(
        zip(schedule.sigmas[:-1], schedule.sigmas[1:], strict=True)
    ):
        variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
        up = min(float(sigma_next), options.eta * math.sqrt(variance))
        down = math.sqrt(sigma_next**2 - up**2)
        rows.append(_straight(schedule, step, down, up * options.s_noise))
    return rows


def _straight(schedule: Schedule, step: int, target: float, noise: float) -> Row:
    """Follow the straight line through x and denoised down to the noise level `target`."""
    ratio = target / float(schedule.sigmas[step])
    return Row(
        step=step,
        sigma=float(schedule.sigmas[step]),
        timestep=float(schedule.timesteps[step]),
        x=(ratio,),
        denoised=(1.0 - ratio,),
        noise=noise,
    )
