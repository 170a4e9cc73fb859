"""The step graph: network, guidance and the sampler's row as one graph, and what it is given.

A derived unet may have it beside it (`export.targets.step_graph` writes it). Its state on the
device is what a sampler looks back at; the graph picks its own row of the table and counts on, so
that the host has nothing to say between two steps:

    state f32[9, P, 4, h, w]   x, four earlier x, four earlier predictions, the newest first
    row int64[1]               which row of the table is next
    table f32[rows, 16]        COLUMNS, the same for all of a trajectory
    noise f32[n, P, 4, h, w]   all pieces that the sampler adds, in order
    mix f32[texts, 1, 1, 1, 1] how predictions are added up: guidance

and the unet's own inputs but sample and timestep. It gives next_state and next_row of the same
shapes, and denoised f32[1, P, 4, h, w]. P: pictures; the unet sees texts * P, the texts outermost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.denoiser import scalings
from engine.samplers.table import Table

__all__ = [
    "COLUMNS",
    "FILE_NAME",
    "HEAD",
    "LATENTS",
    "PREDICTIONS",
    "SLOTS",
    "TERMS",
    "Program",
    "fits",
    "mixed",
    "padded",
    "program_of",
]

Float32 = NDArray[np.float32]
FILE_NAME: Final = "step.onnx"
LATENTS: Final = 5  # latents a row may look at, its own among them: pndm's, the most of any sampler
PREDICTIONS: Final = 5  # predictions, the newest among them: pndm's
SLOTS: Final = LATENTS + PREDICTIONS - 1  # the newest prediction is made within the step
HEAD: Final = ("timestep", "c_in", "c_skip", "c_out", "noise_at")
TERMS: Final = LATENTS + PREDICTIONS + 1  # and noise
COLUMNS: Final = len(HEAD) + TERMS
ROWS: Final = 64  # tables are filled up to a multiple, so that one captured graph serves many


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A trajectory as the step graph takes it; arrays as in the module's text.

    rows: how many there are to run; the table may be longer. inputs: the unet's others.
    """

    rows: int
    table: Float32
    noise: Float32
    state: Float32
    mix: Float32
    inputs: Mapping[str, NDArray[np.generic]] = field(repr=False)


def fits(table: Table) -> bool:
    """Say whether a sampler's rows look back no further than the state reaches."""
    return table.x.shape[1] <= LATENTS and table.denoised.shape[1] <= PREDICTIONS


def padded(rows: int) -> int:
    """Give the length that a table of so many rows is filled up to."""
    return -(-rows // ROWS) * ROWS


def mixed(guidance_scale: float, weights: Sequence[float]) -> Float32:
    """Give the factors of n predictions, the unconditional one first: f32[n, 1, 1, 1, 1].

    u + g * sum(w_k * (c_k - u)) = (1 - g * sum(w_k)) * u + sum(g * w_k * c_k).
    """
    pulls = [guidance_scale * weight for weight in weights]
    factors = np.array([1.0 - math.fsum(pulls), *pulls], dtype=np.float32)
    return factors[:, None, None, None, None]


def program_of(
    table: Table,
    prediction_type: str,
    start: Float32,
    pieces: Sequence[Float32],
    mix: Float32,
    inputs: Mapping[str, NDArray[np.generic]],
) -> Program:
    """Write a trajectory down. start: f32[P, 4, h, w], noised already. pieces: the noise of each
    row that adds some, f32[P, 4, h, w] each. inputs: of the unet, as they stay.
    """
    rows = len(table.sigmas)
    length = padded(rows)
    lines = np.zeros((length, COLUMNS), dtype=np.float64)
    piece = 0
    for row in range(rows):
        sigma = float(table.sigmas[row])
        c_in = 1.0 / math.sqrt(sigma**2 + 1.0)
        c_skip, c_out = scalings(prediction_type, sigma)
        lines[row, : len(HEAD)] = (table.timesteps[row], c_in, c_skip, c_out, piece)
        piece += bool(table.noise[row])
    terms = lines[:rows, len(HEAD) :]
    terms[:, : table.x.shape[1]] = table.x
    terms[:, LATENTS : LATENTS + table.denoised.shape[1]] = table.denoised
    terms[:, -1] = table.noise
    terms[-1] *= table.final_scale
    noise = np.zeros((length if piece else 1, *start.shape), dtype=np.float32)
    for place, each in enumerate(pieces):
        noise[place] = each
    state = np.zeros((SLOTS, *start.shape), dtype=np.float32)
    state[0] = start
    return Program(
        rows=rows, table=lines.astype(np.float32), noise=noise, state=state, mix=mix, inputs=inputs
    )
