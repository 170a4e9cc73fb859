"""Sampling of consistency models: jump, go back by fresh noise, jump again."""

import math
from typing import Final

import numpy as np

from engine.samplers.euler import straight
from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["lcm", "tcd"]

_SIGMA_DATA: Final = 0.5  # the standard deviation of the data that the boundary condition assumes


def lcm(schedule: Schedule, options: Options) -> list[Row]:
    """Multistep consistency sampling: arXiv 2310.04378, algorithm 3, and its appendix on c_skip.

    x' = c_skip * x / sqrt(sigma**2 + 1) + c_out * denoised + sigma' * noise, where
    c_skip and c_out (functions of the timestep) make the model the identity at timestep 0.
    """
    rows = list[Row]()
    for step, timestep in enumerate(schedule.timesteps):
        sigma, sigma_next = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        scaled = float(timestep) * options.timestep_scaling
        square = scaled**2 + _SIGMA_DATA**2
        rows.append(
            Row(
                step=step,
                sigma=sigma,
                timestep=float(timestep),
                x=(_SIGMA_DATA**2 / square / math.sqrt(sigma**2 + 1.0),),
                denoised=(scaled / math.sqrt(square),),
                noise=sigma_next * options.s_noise,
            )
        )
    return rows


def tcd(schedule: Schedule, options: Options) -> list[Row]:
    """Trajectory consistency sampling: arXiv 2402.19159, algorithm 4; eta is the paper's gamma.

    Each step goes straight to the level of timestep (1 - eta) * next and adds noise up to the next;
    the last one ends at the lowest level of the training, as the authors' scheduler does.
    """
    rows = list[Row]()
    for step in range(len(schedule.timesteps)):
        last = step + 1 == len(schedule.timesteps)
        following = 0.0 if last else float(schedule.timesteps[step + 1])
        at = math.floor(np.clip((1.0 - options.eta) * following, 0, following))
        up_to = float(schedule.sigmas[step + 1])
        down = min(up_to, float(options.training_sigmas[at]))
        noise = 0.0 if last or not options.eta else math.sqrt(up_to**2 - down**2)
        rows.append(straight(schedule, step, down, noise * options.s_noise))
    return rows
