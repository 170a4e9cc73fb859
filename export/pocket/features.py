"""The feature space in which "looks like" is measured, made from the known pictures alone.

No pretrained network can be had offline, and icons do not need one. A picture becomes: OKLab on a
16 x 16 grid (where which colour lies), and histograms of edge directions of lightness and colour
over 8 x 8 cells (what the shape is, whatever its colour). Both are then whitened by what does NOT
change an icon's identity: the covariance within a class under small shifts, sizes, blur, and
slips of colour, measured on the known pictures themselves (Fisher's linear discriminant). The
distance is the cosine's. How well it names icons it has not seen in that state is measured every
time (`accuracy`) and reported beside the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from export.pocket.colours import to_oklab
from export.pocket.icons import composite
from export.pocket.placement import place, random_placement

__all__ = ["SPACES", "Space", "describe", "disturb", "fit"]

Array = NDArray[np.float32]

SPACES = ("full", "shape", "colour")
_FINE = 64  # pictures are averaged to that side first: what is finer is no matter of identity
_GRID = 16
_CELLS = 8
_DIRECTIONS = 8
_KEPT = 320  # principal components
_SHRINK = 0.08  # of the mean variance: keeps quiet directions from being blown up


def describe(pictures: np.ndarray, space: str) -> Array:
    """Describe pictures uint8[n, S, S, 3] as f[n, d], before whitening."""
    lab = to_oklab(_shrink(pictures.astype(np.float32) / 255.0, _FINE))
    if space == "colour":
        return _grid(lab)
    if space == "shape":
        return _edges(lab)
    return np.concatenate([_grid(lab), _edges(lab)], axis=1)


def _shrink(lab: Array, side: int) -> Array:
    n, size = lab.shape[:2]
    k = size // side
    return lab.reshape(n, side, k, side, k, 3).mean(axis=(2, 4))


def _grid(lab: Array) -> Array:
    """Average OKLab over a grid; a and b weigh double, as their range is smaller."""
    small = _shrink(lab, _GRID) * np.array([1.0, 2.0, 2.0], np.float32)
    return small.reshape(len(lab), -1)


def _edges(lab: Array) -> Array:
    """Histogram edge directions (0..180 degrees), strength by the root, over 8 x 8 cells."""
    down = np.zeros_like(lab)
    right = np.zeros_like(lab)
    down[:, 1:-1] = lab[:, 2:] - lab[:, :-2]
    right[:, :, 1:-1] = lab[:, :, 2:] - lab[:, :, :-2]
    strength = np.hypot(down, right)
    strongest = strength.argmax(axis=3)[..., None]  # the channel in which the edge shows best
    take = np.take_along_axis
    dy, dx = take(down, strongest, 3)[..., 0], take(right, strongest, 3)[..., 0]
    amount = np.sqrt(np.hypot(dy, dx))
    angle = (np.arctan2(dy, dx) % np.pi) / np.pi * _DIRECTIONS
    low = np.floor(angle).astype(int) % _DIRECTIONS
    share = angle - np.floor(angle)
    n, cell = len(lab), _FINE // _CELLS
    out = np.zeros((n, _FINE, _FINE, _DIRECTIONS), np.float32)
    np.put_along_axis(out, low[..., None], (amount * (1 - share))[..., None], 3)
    nxt = ((low + 1) % _DIRECTIONS)[..., None]
    np.put_along_axis(out, nxt, (amount * share)[..., None], 3)
    cells = out.reshape(n, _CELLS, cell, _CELLS, cell, _DIRECTIONS).mean(axis=(2, 4))
    return cells.reshape(n, -1)


def disturb(rgba: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change what does not matter: place, size, sharpness, a slip of colour. uint8[S, S, 3]."""
    moved = place(rgba, random_placement(rng, shift=3, smallest=0.9, flips=False))
    image = Image.fromarray(composite(moved)).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(0.0, 2.0)))
    )
    slip = rng.normal(0.0, 5.0, 3) + rng.normal(0.0, 3.0, (*image.size, 3))
    return np.clip(np.asarray(image, np.float32) + slip, 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Space:
    """A whitened space: `(describe - mean) @ matrix`, to unit length."""

    name: str
    mean: Array
    matrix: Array

    def __call__(self, pictures: np.ndarray) -> Array:
        """Place pictures uint8[n, S, S, 3]: unit vectors f[n, k]."""
        parts = [pictures[i : i + 128] for i in range(0, len(pictures), 128)]
        points = np.concatenate([(describe(p, self.name) - self.mean) @ self.matrix for p in parts])
        return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)


def fit(
    rgba: np.ndarray, labels: Sequence[int], space: str, *, seed: int, copies: int = 6
) -> Space:
    """Whiten a space on disturbed copies of known icons uint8[n, S, S, 4] of classes `labels`."""
    rng = np.random.default_rng([seed, 6])
    drawn = np.stack([disturb(icon, rng) for icon in rgba for _ in range(copies)])
    parts = [drawn[i : i + 128] for i in range(0, len(drawn), 128)]
    x = np.concatenate([describe(p, space) for p in parts]).astype(np.float64)
    classes = np.repeat(np.asarray(labels), copies)
    mean = x.mean(axis=0)
    x -= mean
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    axes = vectors[:, ::-1][:, : min(_KEPT, len(rgba) - 1, x.shape[1])]
    del values
    y = x @ axes
    for label in np.unique(classes):
        mask = classes == label
        y[mask] -= y[mask].mean(axis=0)
    within = y.T @ y / len(y)
    amount, turn = np.linalg.eigh(within)
    scale = 1.0 / np.sqrt(amount + _SHRINK * amount.mean())
    matrix = axes @ turn @ np.diag(scale)
    return Space(name=space, mean=mean.astype(np.float32), matrix=matrix.astype(np.float32))
