"""One row of a sampler's table as the paper writes it, and the packing of rows into a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.samplers.table import Schedule, Table

__all__ = ["Options", "Row", "pack"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a sampler may be told beside its schedule; every sampler takes what it knows.

    eta: 0 deterministic .. 1 fully stochastic. s_noise: factor on added noise, 1 in theory.
    order: of a multistep method. solver: a variant's name, empty for the usual one.
    lower_order_final: few-step runs end with a first-order step. timestep_scaling: of the boundary
    condition of a latent consistency model. prediction_type: what the network was trained for.
    training_sigmas: f64[T], the noise level of each timestep, rising.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    order: int = 2
    solver: str = ""
    lower_order_final: bool = True
    euler_at_final: bool = False
    timestep_scaling: float = 10.0
    prediction_type: str = "epsilon"
    training_sigmas: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def timestep_at(self, sigma: float) -> float:
        """Give the timestep of a level between those of the training, linear in log sigma."""
        levels = np.log(self.training_sigmas)
        return float(np.interp(math.log(sigma), levels, np.arange(len(levels))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One network evaluation in step `step`, at noise level `sigma`, and what follows from it.

    x, denoised: coefficients of the newest value first, then of earlier ones; noise: of new noise.
    """

    step: int
    sigma: float
    timestep: float
    x: tuple[float, ...]
    denoised: tuple[float, ...]
    noise: float = 0.0


def pack(rows: Sequence[Row], schedule: Schedule, final_scale: float) -> Table:
    """Lay rows side by side, the short ones filled with 0."""
    return Table(
        sigmas=np.array([row.sigma for row in rows]),
        timesteps=np.array([row.timestep for row in rows]),
        steps=np.array([row.step for row in rows], dtype=np.int64),
        x=_matrix([row.x for row in rows]),
        denoised=_matrix([row.denoised for row in rows]),
        noise=np.array([row.noise for row in rows]),
        initial_scale=schedule.initial_scale,
        final_scale=final_scale,
    )


def _matrix(lines: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    width = max(map(len, lines))
    return np.array([line + (0.0,) * (width - len(line)) for line in lines])
