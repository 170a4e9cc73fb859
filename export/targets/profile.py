"""Says between which shapes a compiled network must work, and for which it should be fastest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.manifest import Manifest, TensorSpec
from export.errors import GraphError, SourceError

__all__ = ["PictureShape", "Profile", "ShapeRange", "profile_of", "shape_ranges"]

CHUNKS = 3  # of a prompt; a longer one needs a plan of its own
HALVES = (1, 2)  # one without guidance, two with it


class PictureShape(Protocol):
    """What is asked for: width and height in pixels, batch in pictures."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def batch(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Free size by its name in the bundle's graphs -> least, best, most.

    batch: pictures times halves. height, width: latents; height_px, width_px: pixels.
    """

    sizes: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeRange:
    """The least, best and largest shape of one input."""

    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    def __str__(self) -> str:
        """Write 1x4x64x64..2x4x64x64..2x4x64x64."""
        return "..".join("x".join(map(str, each)) for each in (self.least, self.best, self.most))


def profile_of(manifest: Manifest, shapes: Sequence[PictureShape]) -> Profile:
    """Make the profile that covers `shapes`, fastest for the bundle's default size or the largest.

    None means one picture of the default size; guidance doubles a batch. Raises SourceError where
    a side is no multiple of the VAE's factor.
    """
    factor, limit = manifest.vae_scale_factor, manifest.token_limit
    for shape in shapes:
        if shape.width % factor or shape.height % factor:
            raise SourceError(
                f"{shape.width}x{shape.height} is no size of pictures",
                hint=f"both sides must be multiples of {factor} pixels",
            )
    default = manifest.default_width, manifest.default_height
    asked = [(shape.width, shape.height, shape.batch) for shape in shapes] or [(*default, 1)]
    usual = [each for each in asked if each[:2] == default]
    best = max(usual or asked, key=math.prod)
    widths, heights, batches = zip(*asked, strict=True)
    sizes = {
        "batch": (HALVES[0] * min(batches), HALVES[1] * best[2], HALVES[1] * max(batches)),
        "tokens": (limit, limit, CHUNKS * limit),
    }
    for name, sides, middle in (("width", widths, best[0]), ("height", heights, best[1])):
        pixels = (min(sides), middle, max(sides))
        sizes[f"{name}_px"] = pixels
        sizes[name] = (pixels[0] // factor, pixels[1] // factor, pixels[2] // factor)
    return Profile(sizes=sizes)


def shape_ranges(inputs: Mapping[str, TensorSpec], profile: Profile) -> dict[str, ShapeRange]:
    """Give input -> its shapes, for the inputs that have a free size.

    Raises GraphError for a free size that the profile knows nothing of.
    """
    found: dict[str, ShapeRange] = {}
    for name, spec in inputs.items():
        free = [size for size in spec.shape if isinstance(size, str)]
        unknown = [size for size in free if size not in profile.sizes]
        if unknown:
            raise GraphError(f"the input '{name}' has the free size '{unknown[0]}'; none is known")
        if free:
            least, best, most = (
                tuple(
                    profile.sizes[size][which] if isinstance(size, str) else size
                    for size in spec.shape
                )
                for which in range(3)
            )
            found[name] = ShapeRange(least=least, best=best, most=most)
    return found
