"""Samplers of second order with a look half-way: DPM-Solver-2, DPM-Solver++(2S) and its SDE form.

All go straight to the middle in log sigma first, and take the whole step from where it began with
what the network says there. So each step is two rows, and the second one starts from x[1].
"""

import math

from engine.samplers.euler import ancestral_levels, straight
from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde"]


def dpm2(schedule: Schedule, options: Options) -> list[Row]:
    """DPM-Solver-2, arXiv 2206.00927 algorithm 1, as Karras' algorithm 2 lays it."""
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        rows += _by_slope(schedule, options, step, float(schedule.sigmas[step + 1]))
    return rows


def dpm2_a(schedule: Schedule, options: Options) -> list[Row]:
    """Take DPM-Solver-2 further down than asked, and add noise up to the level: k-diffusion's."""
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        sigma, sigma_next = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        down, up = ancestral_levels(sigma, sigma_next, options.eta)
        rows += _by_slope(schedule, options, step, down, up * options.s_noise)
    return rows


def dpmpp_2s_a(schedule: Schedule, options: Options) -> list[Row]:
    """DPM-Solver++(2S), arXiv 2211.01095 algorithm 1, with k-diffusion's ancestral noise."""
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        sigma, sigma_next = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        down, up = ancestral_levels(sigma, sigma_next, options.eta)
        noise = up * options.s_noise
        if down == 0.0:
            rows.append(straight(schedule, step, down, noise))
            continue
        middle, ratio = math.sqrt(sigma * down), down / sigma
        rows.append(straight(schedule, step, middle, 0.0))
        rows.append(
            Row(
                step=step,
                sigma=middle,
                timestep=_timestep(schedule, options, step, middle),
                x=(0.0, ratio),
                denoised=(1.0 - ratio,),
                noise=noise,
            )
        )
    return rows


def dpmpp_sde(schedule: Schedule, options: Options) -> list[Row]:
    """DPM-Solver++ as an SDE with a look half-way: k-diffusion's, with r = 1/2.

    Both parts of a step lie on one Brownian path: of the whole step's noise, the share rho is the
    first half's. That is linear in what the second row has: first noise = (x - straight) / up.
    """
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        sigma, sigma_next = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        if sigma_next == 0.0:
            rows.append(straight(schedule, step, 0.0, 0.0))
            continue
        middle = math.sqrt(sigma * sigma_next)
        near, near_up = ancestral_levels(sigma, middle, options.eta)
        down, up = ancestral_levels(sigma, sigma_next, options.eta)
        rows.append(straight(schedule, step, near, near_up * options.s_noise))
        share = (sigma - middle) / (sigma - sigma_next)  # rho squared, by time spent
        again = up * math.sqrt(share) / near_up if near_up else 0.0
        rows.append(
            Row(
                step=step,
                sigma=middle,
                timestep=_timestep(schedule, options, step, middle),
                x=(again, (down - again * near) / sigma),
                denoised=(1.0 - down / sigma, -again * (1.0 - near / sigma)),
                noise=up * math.sqrt(1.0 - share) * options.s_noise,
            )
        )
    return rows


def _by_slope(
    schedule: Schedule, options: Options, step: int, target: float, noise: float = 0.0
) -> list[Row]:
    """Step to the level `target` with the slope (x - denoised) / sigma of the middle."""
    if target == 0.0:
        return [straight(schedule, step, 0.0, noise)]
    sigma = float(schedule.sigmas[step])
    middle = math.sqrt(sigma * target)
    weight = (target - sigma) / middle
    second = Row(
        step=step,
        sigma=middle,
        timestep=_timestep(schedule, options, step, middle),
        x=(weight, 1.0),
        denoised=(-weight,),
        noise=noise,
    )
    return [straight(schedule, step, middle, 0.0), second]


def _timestep(schedule: Schedule, options: Options, step: int, middle: float) -> float:
    """Say what the network is told half-way: with eta 1 that is the very next level."""
    if math.isclose(middle, schedule.sigmas[step + 1], rel_tol=1e-9):
        return float(schedule.timesteps[step + 1])
    return options.timestep_at(middle)
