"""The safety checker that a checkpoint brings along: is a finished picture flagged?

Preparation as transformers' CLIPImageProcessor does it with Pillow, decision as diffusers'
StableDiffusionSafetyChecker does; how that decides is described in Rando et al., arXiv 2210.04610.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError, NotFiniteError
from engine.jsonfile import Fields, read_json

if TYPE_CHECKING:
    from engine.backends import Session
    from engine.bundle import Bundle

__all__ = [
    "COMPONENT",
    "PREPARATION_FILE",
    "Preparation",
    "SafetyChecker",
    "Thresholds",
    "is_flagged",
]

Float32 = NDArray[np.float32]
COMPONENT = "safety_checker"
PREPARATION_FILE = "feature_extractor/preprocessor_config.json"
CONFIG_LIMIT = 1 << 20  # bytes of a configuration; real ones have 2 KiB
MAX_EDGE = 4096  # pixels; CLIP's have 224 and 336
BICUBIC = 3  # Pillow's number of the filter
SCALE = 1.0 / 255.0  # from levels to 0..1
# Of the pictures that CLIP was trained on, over 0..1 (github.com/openai/CLIP, clip.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
# What a picture near a special-care concept has added to its other scores.
CARE = np.float32(0.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """How a picture becomes the network's input. edge: pixels of its shorter side after resizing.
    crop: pixels a side of the square cut from its middle. mean, std: a channel, over 0..1.
    """

    edge: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Preparation":
        """Read a preprocessor_config.json. Raises BundleError for what is prepared otherwise."""
        fields = Fields(dict(config), PREPARATION_FILE)
        steps = all(config.get(step, True) is True for step in STEPS)
        scale = fields.number("rescale_factor", 0.0, 1.0) if "rescale_factor" in config else SCALE
        other = abs(scale / SCALE - 1.0) > 1e-6  # files have it in various numbers of digits
        if not steps or other or config.get("resample", BICUBIC) != BICUBIC:
            raise BundleError(
                f"{PREPARATION_FILE} prepares pictures in another way than CLIP's: bicubic resize,"
                " centre crop and normalisation are needed"
            )
        edge = _pixels(fields, config, "size", ("shortest_edge",))
        crop = _pixels(fields, config, "crop_size", ("height", "width"))
        if crop > edge:
            raise BundleError(f"{PREPARATION_FILE}: crop_size {crop} is more than size {edge}")
        mean, std = (
            fields.numbers(key, 3, low, 10.0) if key in config else usual
            for key, low, usual in (("image_mean", -10.0, CLIP_MEAN), ("image_std", 1e-6, CLIP_STD))
        )
        return cls(edge=edge, crop=crop, mean=mean, std=std)

    def apply(self, pixels: NDArray[np.uint8]) -> Float32:
        """Turn uint8[H, W, 3] into f32[1, 3, crop, crop]."""
        from PIL import Image

        height, width = pixels.shape[:2]
        long = int(self.edge * max(height, width) / min(height, width))
        size = (self.edge, long) if width < height else (long, self.edge)
        resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        top, left = ((each - self.crop) // 2 for each in resized.shape[:2])
        square = resized[top : top + self.crop, left : left + self.crop].astype(np.float32)
        square /= np.float32(255.0)
        square -= np.array(self.mean, np.float32)
        square /= np.array(self.std, np.float32)
        return np.ascontiguousarray(square.transpose(2, 0, 1)[None])  # (1, 3, crop, crop)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """From which cosine on a picture counts as near: for each concept, and each of special care."""

    concepts: tuple[float, ...]
    special_care: tuple[float, ...]


def is_flagged(concepts: Float32, special_care: Float32, thresholds: Thresholds) -> bool:
    """Decide from cosines f32[n] and f32[m], as the reference does, its rounding included."""
    care = np.float32(0.0)
    for cosine, threshold in zip(special_care, thresholds.special_care, strict=True):
        if _score(cosine, threshold, care) > 0:
            care = CARE
    return any(
        _score(cosine, threshold, care) > 0
        for cosine, threshold in zip(concepts, thresholds.concepts, strict=True)
    )


def _score(cosine: np.float32, threshold: float, care: np.float32) -> float:
    return float(np.round(cosine - np.float32(threshold) + care, 3))


class SafetyChecker:
    """A bundle's own preparation and thresholds, for the network in its `safety_checker`."""

    def __init__(self, bundle: "Bundle") -> None:
        """Read them. Raises BundleError where they do not fit the network."""
        config = read_json(bundle.path / PREPARATION_FILE, CONFIG_LIMIT)
        self._preparation = Preparation.from_config(config)
        part = bundle.manifest.components[COMPONENT]
        side, own = self._preparation.crop, part.inputs.get("clip_input")
        if own is None or own.shape[1:] != (3, side, side):
            raise BundleError(
                f"the safety checker does not take pictures of {side}x{side}, as {PREPARATION_FILE}"
                " makes them"
            )
        counts = [spec.shape[-1] for spec in part.outputs.values()]
        values = Fields(read_json(bundle.path / COMPONENT / "config.json", CONFIG_LIMIT), COMPONENT)
        keys = ("concept_embeds_weights", "special_care_embeds_weights")
        if len(counts) != len(keys):
            raise BundleError(f"the safety checker has {len(counts)} outputs; 2 are needed")
        concepts, special_care = (
            values.numbers(key, count if isinstance(count, int) else 0, -10.0, 10.0)
            for key, count in zip(keys, counts, strict=True)
        )
        self._thresholds = Thresholds(concepts=concepts, special_care=special_care)

    @property
    def side(self) -> int:
        """Give the pixels a side of what the network takes."""
        return self._preparation.crop

    def flags(self, pixels: NDArray[np.uint8], session: "Session") -> bool:
        """Say whether uint8[H, W, 3] is flagged. Raises NotFiniteError, BundleError."""
        found = session.run_all({"clip_input": self._preparation.apply(pixels)})
        concepts, special_care = self._checked(list(found.values()))
        return is_flagged(concepts, special_care, self._thresholds)

    def _checked(self, found: Sequence[Float32]) -> tuple[Float32, Float32]:
        wanted = [len(self._thresholds.concepts), len(self._thresholds.special_care)]
        shapes = [each.shape for each in found]
        if shapes != [(1, count) for count in wanted]:
            raise BundleError(f"the safety checker gives {shapes}; {wanted} cosines are needed")
        if not all(np.isfinite(each).all() for each in found):
            raise NotFiniteError(
                "the safety checker gave NaN or Inf, so the picture is not judged",
                hint="the model may be damaged: safelight models verify",
            )
        return found[0][0], found[1][0]


def _pixels(fields: Fields, config: Mapping[str, object], key: str, inner: tuple[str, ...]) -> int:
    """Take a number of pixels that is written alone or as an object whose values are the same."""
    value = config.get(key, 224)
    if not isinstance(value, dict):
        return fields.integer(key, 1, MAX_EDGE) if key in config else 224
    sides = fields.fields(key)
    found = {sides.integer(name, 1, MAX_EDGE) for name in inner}
    if len(found) != 1 or set(sides.each()) != set(inner):
        raise BundleError(f"{PREPARATION_FILE}: '{key}' is no square of the shorter side")
    return found.pop()
