"""Moves icons about: flips, shifts, sizes, backgrounds, pairs, all in premultiplied RGBA uint8."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from export.pocket.colours import BACKGROUNDS
from export.pocket.icons import composite

__all__ = [
    "Placement",
    "beside",
    "compose",
    "place",
    "random_background",
    "random_placement",
]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an icon lies: mirrored or not, moved by pixels, scaled about the middle."""

    flip: bool = False
    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0


def random_placement(
    rng: np.random.Generator, *, shift: int, smallest: float, flips: bool
) -> Placement:
    """Draw a placement: whole pixels up to `shift`, sizes from `smallest` to 1."""
    flip = bool(rng.random() < 0.5) and flips
    right, down = (float(v) for v in rng.integers(-shift, shift + 1, 2))
    scale = float(rng.uniform(smallest, 1.0)) if rng.random() < 0.6 else 1.0
    return Placement(flip=flip, right=right, down=down, scale=scale)


def place(rgba: np.ndarray, at: Placement) -> np.ndarray:
    """Move an icon uint8[S, S, 4]. Whole-pixel moves at scale 1 copy pixels exactly."""
    size = rgba.shape[0]
    source = np.ascontiguousarray(rgba[:, ::-1]) if at.flip else rgba
    if at.scale == 1.0:
        return _slide(source, int(at.right), int(at.down))
    side = max(1, round(size * at.scale))
    small = _resize(source, side)
    out = np.zeros_like(source)
    edge = (size - side) // 2
    top = int(np.clip(edge + at.down, 0, size - side))
    left = int(np.clip(edge + at.right, 0, size - side))
    out[top : top + side, left : left + side] = small
    return out


def _resize(rgba: np.ndarray, side: int) -> np.ndarray:
    """Resize premultiplied RGBA by area and cubic, channel by channel ("RGBa" stays as it is)."""
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(rgba[..., k])).resize(
                (side, side),
                Image.Resampling.BOX if side < rgba.shape[0] // 2 else Image.Resampling.BICUBIC,
            )
        )
        for k in range(4)
    ]
    out = np.stack(planes, axis=-1)
    out[..., :3] = np.minimum(out[..., :3], out[..., 3:])
    return out


def _slide(rgba: np.ndarray, right: int, down: int) -> np.ndarray:
    if not right and not down:
        return rgba
    out = np.zeros_like(rgba)
    size = rgba.shape[0]
    y, x = max(0, down), max(0, right)
    v, u = max(0, -down), max(0, -right)
    height, width = size - abs(down), size - abs(right)
    out[y : y + height, x : x + width] = rgba[v : v + height, u : u + width]
    return out


def random_background(rng: np.random.Generator) -> str:
    """Draw the name of a background colour."""
    names = sorted(BACKGROUNDS)
    return names[int(rng.integers(len(names)))]


def compose(rgba: np.ndarray, background: str) -> np.ndarray:
    """Lay an icon over a named background: uint8[S, S, 3]."""
    return composite(rgba, BACKGROUNDS[background])


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Lay two icons uint8[S, S, 4] side by side at half size: one picture of that shape."""
    size = left.shape[0]
    half = size // 2
    out = np.zeros_like(left)
    top = (size - half) // 2
    out[top : top + half, :half] = _resize(left, half)
    out[top : top + half, half:] = _resize(right, half)
    return out
