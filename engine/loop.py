"""The one loop that runs every sampler: rows of a table over rings of latents and predictions."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.moment import Moment
from engine.samplers.table import Table

__all__ = ["Denoise", "NoiseSource", "integrate"]

Float32 = NDArray[np.float32]
Denoise = Callable[[Float32, Moment], Float32]


class NoiseSource(Protocol):
    """Where noise comes from: one source a picture, each call the next piece of its stream."""

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Draw unit normal noise f32[shape]."""
        ...


def integrate(
    table: Table, noise_source: NoiseSource, start: Float32, denoise: Denoise
) -> Iterator[tuple[int, Float32, Float32]]:
    """Run the table, yielding (row, x', denoised) after each network evaluation.

    start: f32[1, 4, h, w], clean latents that the first noise is added to; zeros for pure noise.
    x' is of its shape, the latents after the row, in the space of table.sigmas; the last one is
    already multiplied by final_scale: it is what to decode. Both arrays belong to the loop and hold
    until the next item is asked for; copy what must live longer. What is written into x' before
    that is what the next row sees. Noise is drawn first for the start, then for each row that
    wants it.
    """
    shape = start.shape
    rows, depth_x = table.x.shape
    # a slot more than the table looks back, so that x' is not written over what it is made from
    latents = [np.empty(shape, dtype=np.float32) for _ in range(depth_x + 1)]
    predictions = [np.empty(shape, dtype=np.float32) for _ in range(table.denoised.shape[1])]
    term = np.empty(shape, dtype=np.float32)
    x_rows, denoised_rows = table.x.tolist(), table.denoised.tolist()
    np.multiply(noise_source.normal(shape), np.float32(table.initial_scale), out=latents[0])
    np.add(latents[0], start, out=latents[0])
    steps = int(table.steps[-1]) + 1
    for row in range(rows):
        x = latents[row % len(latents)]
        denoised = predictions[row % len(predictions)]
        sigma, timestep = float(table.sigmas[row]), float(table.timesteps[row])
        moment = Moment(row, int(table.steps[row]), steps, sigma, timestep)
        np.copyto(denoised, denoise(x, moment))
        x_next = latents[(row + 1) % len(latents)]
        x_next.fill(0.0)
        for coefficients, ring in ((x_rows[row], latents), (denoised_rows[row], predictions)):
            for age, coefficient in enumerate(coefficients):
                if coefficient:  # what is not needed may not exist yet
                    np.multiply(ring[(row - age) % len(ring)], np.float32(coefficient), out=term)
                    np.add(x_next, term, out=x_next)
        if table.noise[row]:
            np.multiply(noise_source.normal(shape), np.float32(table.noise[row]), out=term)
            np.add(x_next, term, out=x_next)
        if row == rows - 1 and table.final_scale != 1.0:
            np.multiply(x_next, np.float32(table.final_scale), out=x_next)
        yield row, x_next, denoised
