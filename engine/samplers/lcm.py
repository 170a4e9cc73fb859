"""Sampling of latent consistency models: jump to the end, go back by fresh noise, jump again."""

import math
from typing import Final

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["lcm"]

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
