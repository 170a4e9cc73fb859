"""Samplers as coefficient tables: a pure function from a schedule to numbers, and one loop for all.

A new sampler is one function `(Schedule, Options) -> list[Row]` and one line in `METHODS` (and one
in `engine.schedule.CONVENTIONS`, which says how its timesteps lie).
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Final

import numpy as np

from engine.errors import RequestError, unknown_name
from engine.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from engine.samplers.euler import ancestral, euler
from engine.samplers.heun import heun
from engine.samplers.lcm import lcm, tcd
from engine.samplers.midpoint import dpm2, dpm2_a, dpmpp_2s_a, dpmpp_sde
from engine.samplers.multistep import deis, lms, pndm
from engine.samplers.row import Options, Row, pack
from engine.samplers.table import Schedule, Table
from engine.samplers.unipc import unipc
from engine.schedule import CONVENTIONS, PREDICTION_TYPES, SPACINGS, Training, schedule

__all__ = ["CELLS", "METHODS", "Schedule", "Table", "tabulate", "write_table"]

METHODS: Final[Mapping[str, Callable[[Schedule, Options], list[Row]]]] = {
    "ddim": ancestral,
    "ddpm": ancestral,
    "deis": deis,
    "dpm2": dpm2,
    "dpm2_a": dpm2_a,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_2s_a": dpmpp_2s_a,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "dpmpp_sde": dpmpp_sde,
    "euler": euler,
    "euler_a": ancestral,
    "heun": heun,
    "lcm": lcm,
    "lms": lms,
    "pndm": pndm,
    "tcd": tcd,
    "unipc": unipc,
}

# The supported cells: sampler x schedule x prediction type. All are tested against an oracle.
CELLS: Final = tuple(
    cell
    for cell in product(METHODS, SPACINGS, PREDICTION_TYPES)
    if cell[1] != "ays" or cell[2] == "epsilon"  # published for that alone
)


def tabulate(
    sampler: str,
    training: Training,
    schedule_name: str,
    steps: int,
    eta: float,
    s_noise: float = 1.0,
) -> Table:
    """Write the table of `sampler` on the spacing `schedule_name` with `steps` steps.

    eta: 0 deterministic .. 1 fully stochastic; samplers without noise ignore it. s_noise: factor on
    the added noise. Raises RequestError for unknown names and for values without meaning.
    """
    if sampler not in METHODS:
        raise unknown_name("sampler", sampler, tuple(METHODS))
    spaced = schedule(schedule_name, training, steps, sampler)
    return write_table(sampler, spaced, training, eta, s_noise)


def write_table(
    sampler: str, spaced: Schedule, training: Training, eta: float, s_noise: float = 1.0
) -> Table:
    """Write the table of `sampler` on a schedule that is laid already, or the last part of one."""
    for name, value in (("eta", eta), ("s_noise", s_noise)):
        if not 0.0 <= value <= 2.0:  # NaN fails here as well
            raise RequestError(f"{name} is {value}; from 0 to 2 is allowed")
    options = Options(
        eta=eta,
        s_noise=s_noise,
        order=training.solver_order,
        solver=training.solver_type,
        lower_order_final=training.lower_order_final,
        euler_at_final=training.euler_at_final,
        timestep_scaling=training.timestep_scaling,
        prediction_type=training.prediction_type,
        training_sigmas=training.sigmas,
    )
    final_scale = 1.0
    if CONVENTIONS[sampler].variance_preserving:
        final_scale = float(1.0 / np.sqrt(spaced.sigmas[-1] ** 2 + 1.0))
    return pack(METHODS[sampler](spaced, options), spaced, final_scale)
