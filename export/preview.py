"""Fits the linear map from latents to colours that previews use: least squares on the decoder."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.manifest import LatentRgb

__all__ = ["fit_latent_rgb"]

Array = NDArray[np.float32]
SIDE = 16  # latents a side of a trial picture
TRIALS = 6


def fit_latent_rgb(decode: Callable[[Array], Array], latents: Array) -> LatentRgb:
    """Fit rgb (0..1) = latents @ factors + bias on smooth random latents and on `latents`.

    decode: scaled latents f[1, 4, h, w] -> picture f[1, 3, 8h, 8w] in -1..1. Smooth noise of unit
    variance resembles trained latents more than white noise, which a decoder renders as mud.
    """
    draw = np.random.default_rng(21)
    trials = [latents.astype(np.float32)]
    for trial in range(TRIALS):
        coarse = draw.standard_normal((1, 4, 2 ** (trial % 3 + 1), 2 ** (trial % 3 + 1)))
        repeat = SIDE // coarse.shape[-1]
        trials.append(coarse.repeat(repeat, 2).repeat(repeat, 3).astype(np.float32))
    rows, colours = [], []
    for x in trials:
        picture = np.clip(decode(x) / 2 + 0.5, 0, 1)
        height, width = x.shape[2:]
        small = picture.reshape(1, 3, height, 8, width, 8).mean(axis=(3, 5))
        rows.append(x[0].reshape(4, -1).T)  # (h*w, 4)
        colours.append(small[0].reshape(3, -1).T)  # (h*w, 3)
    known = np.concatenate(rows).astype(np.float64)
    known = np.concatenate([known, np.ones((len(known), 1))], axis=1)
    solved = np.linalg.lstsq(known, np.concatenate(colours).astype(np.float64), rcond=None)[0]
    table = [tuple(round(float(value), 6) for value in row) for row in solved]
    return LatentRgb(factors=tuple(table[:4]), bias=table[4])
