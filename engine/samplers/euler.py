"""Euler's method, its ancestral form and DDIM: one straight step along the ODE, then fresh noise.

In the space x = x0 + sigma * eps the three are one formula; they differ in where noise enters.
"""

import math

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["ancestral", "ancestral_levels", "euler", "straight"]


def euler(schedule: Schedule, options: Options) -> list[Row]:  # noqa: ARG001 - one signature
    """Step x' = x + (sigma' - sigma) * (x - denoised) / sigma: arXiv 2206.00364, algorithm 1."""
    return [
        straight(schedule, step, float(sigma_next), 0.0)
        for step, sigma_next in enumerate(schedule.sigmas[1:])
    ]


def ancestral(schedule: Schedule, options: Options) -> list[Row]:
    """Step further down than asked and add noise up to the level again, as much as eta says.

    With eta 1 this is k-diffusion's ancestral Euler. DDIM, arXiv 2010.02502 equations 12 and 16,
    is the same formula: with a = 1 / (1 + sigma**2), its noise of variance
    eta**2 * (1 - a') / (1 - a) * (1 - a / a') is `up**2 * a'` here.
    """
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        sigma, sigma_next = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        down, up = ancestral_levels(sigma, sigma_next, options.eta)
        rows.append(straight(schedule, step, down, up * options.s_noise))
    return rows


def ancestral_levels(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Split the way from one level to the next: how far down without noise, how much noise after.

    With eta 1 it is the posterior of the forward process: arXiv 2006.11239, equation 7.
    """
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    up = min(sigma_next, eta * math.sqrt(variance))
    return math.sqrt(sigma_next**2 - up**2), up


def straight(schedule: Schedule, step: int, target: float, noise: float) -> Row:
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
