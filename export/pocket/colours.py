"""OKLab, OKLCH, the recipe's colour names, and the recolouring of an icon.

Source of the matrices: Björn Ottosson, "A perceptual color space for image processing" (2020).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACKGROUNDS",
    "TARGETS",
    "dominant",
    "from_oklab",
    "hue_distance",
    "name_colour",
    "recolour",
    "to_oklab",
]

Array = NDArray[np.float32]

# Lightness 0..1, chroma, hue in degrees: what a person calls by the name, at an icon's strength.
TARGETS: dict[str, tuple[float, float, float]] = {
    "red": (0.60, 0.21, 26.0),
    "orange": (0.73, 0.17, 56.0),
    "yellow": (0.87, 0.17, 96.0),
    "green": (0.67, 0.18, 146.0),
    "blue": (0.61, 0.18, 256.0),
    "purple": (0.55, 0.20, 302.0),
    "pink": (0.76, 0.15, 355.0),
}
# sRGB 0..255. Quiet tones, so that an icon of the same colour still stands out.
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (240, 150, 145),
    "orange": (255, 200, 140),
    "yellow": (255, 236, 150),
    "green": (175, 225, 175),
    "blue": (165, 205, 250),
    "purple": (210, 185, 245),
    "pink": (255, 200, 220),
    "grey": (190, 192, 196),
    "black": (24, 24, 28),
}
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)
_FROM_LMS = np.linalg.inv(_TO_LMS).astype(np.float32)
_FROM_LAB = np.linalg.inv(_TO_LAB).astype(np.float32)

COLOURFUL = 0.06  # chroma from which a pixel has a hue that one would name


def to_oklab(rgb: NDArray[np.generic]) -> Array:
    """Turn sRGB 0..1 f[..., 3] into OKLab f[..., 3]."""
    x = np.asarray(rgb, np.float32)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return (np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T).astype(np.float32)


def from_oklab(lab: Array) -> Array:
    """Turn OKLab f[..., 3] into sRGB 0..1, cut to the gamut."""
    linear = np.clip(((lab @ _FROM_LAB.T) ** 3) @ _FROM_LMS.T, 0.0, 1.0)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(rgb, 0.0, 1.0).astype(np.float32)


def hue_distance(a: NDArray[np.floating] | float, b: float) -> Array:
    """Give the angle between two hues, 0..180 degrees."""
    return np.abs((np.asarray(a, np.float32) - np.float32(b) + 180.0) % 360.0 - 180.0)


def dominant(rgb: Array, alpha: Array) -> tuple[float, float, float, float]:
    """Find an icon's main colour: share of its area (0..1), lightness, chroma, hue in degrees.

    The hue is the highest of a smoothed histogram over pixels with a nameable hue, weighed by
    their chroma; the share counts pixels within 35 degrees of it.
    """
    lab = to_oklab(rgb)[alpha > 0.5]
    if not len(lab):
        return 0.0, 0.0, 0.0, 0.0
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    hue = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360.0
    weight = np.where(chroma > COLOURFUL, chroma, 0.0)
    counts, _ = np.histogram(hue, bins=72, range=(0, 360), weights=weight)
    smooth = sum(np.roll(counts, k) for k in range(-3, 4))
    peak = float(np.argmax(smooth)) * 5.0 + 2.5
    near = (hue_distance(hue, peak) < 35.0) & (chroma > COLOURFUL)
    if not near.any():
        return 0.0, 0.0, 0.0, 0.0
    share = float(near.mean())
    mean = lab[near].mean(axis=0)
    angle = float(np.degrees(np.arctan2(mean[2], mean[1])) % 360.0)
    return share, float(mean[0]), float(np.hypot(mean[1], mean[2])), angle


def name_colour(lightness: float, chroma: float, hue: float) -> str:
    """Name a colour by the nearest target in OKLab, or "" if it is near none."""
    if chroma < COLOURFUL:
        return ""
    here = _point(lightness, chroma, hue)
    away = {name: float(np.linalg.norm(here - _point(*at))) for name, at in TARGETS.items()}
    best = min(away, key=lambda name: away[name])
    return best if away[best] < 0.12 else ""


def recolour(rgb: Array, alpha: Array, target: str) -> Array:
    """Move the hues near an icon's main one to a target colour. sRGB 0..1 f[H, W, 3] in and out.

    Lightness moves seven tenths of the way, so that yellow is bright and purple deep, and the
    shading stays. Greys and far hues (eyes, leaves, wheels) are left.
    """
    _, lightness, chroma, hue = dominant(rgb, alpha)
    to_lightness, to_chroma, to_hue = TARGETS[target]
    lab = to_oklab(rgb)
    c = np.hypot(lab[..., 1], lab[..., 2])
    h = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360.0
    away = (h - hue + 180.0) % 360.0 - 180.0
    weight = np.clip((62.0 - np.abs(away)) / 22.0, 0.0, 1.0) * np.clip((c - 0.02) / 0.04, 0.0, 1.0)
    factor = np.clip(to_chroma / max(chroma, 1e-3), 0.7, 1.8)
    new_c = c * (1 + weight * (factor - 1))
    new_h = np.radians(np.where(weight > 0, to_hue + 0.5 * away, h))
    new_l = np.clip(lab[..., 0] + 0.7 * (to_lightness - lightness), 0.05, 0.99)
    moved = np.stack([new_l, new_c * np.cos(new_h), new_c * np.sin(new_h)], axis=-1)
    mixed = lab + weight[..., None] * (moved - lab)
    return from_oklab(mixed.astype(np.float32))


def _point(lightness: float, chroma: float, hue: float) -> Array:
    """Place a colour in OKLab."""
    angle = np.radians(hue)
    return np.array([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], np.float32)
