"""Heun's method: a step with Euler, a look at the slope there, and the step again with the mean."""

from engine.samplers.row import Options, Row
from engine.samplers.table import Schedule

__all__ = ["heun"]


def heun(schedule: Schedule, options: Options) -> list[Row]:  # noqa: ARG001 - one signature
    """Two rows a step, arXiv 2206.00364 algorithm 1; the step to sigma 0 is Euler's alone.

    The first row is Euler's. The second starts again from x[1], the first one's input, with the
    mean of both slopes d = (x - denoised) / sigma.
    """
    rows = list[Row]()
    sigmas, timesteps = schedule.sigmas, schedule.timesteps
    for step in range(len(timesteps)):
        sigma, sigma_next = float(sigmas[step]), float(sigmas[step + 1])
        ratio = sigma_next / sigma
        timestep = float(timesteps[step])
        rows.append(
            Row(step=step, sigma=sigma, timestep=timestep, x=(ratio,), denoised=(1.0 - ratio,))
        )
        if step + 1 == len(timesteps):
            break
        half = (sigma_next - sigma) / 2
        here, there = half / sigma, half / sigma_next  # weights of the two slopes' numerators
        rows.append(
            Row(
                step=step,
                sigma=sigma_next,
                timestep=float(timesteps[step + 1]),
                x=(there, 1.0 + here),
                denoised=(-there, -here),
            )
        )
    return rows
