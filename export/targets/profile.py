"""Says between which shapes a compiled network must work, and for which it should be fastest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.manifest import Manifest, TensorSpec
from export.errors import GraphError, SourceError

__all__ = ["Profile", "ShapeRange", "profile_of", "shape_ranges"]

CHUNKS = 3  # of a prompt; a longer one needs a plan of its own
HALVES = (1, 2)  # one without guidance, two with it
MAX_SIDE = 8192  # pixels
MAX_BATCH = 64


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


def profile_of(manifest: Manifest, shapes: Sequence[Sequence[int]]) -> Profile:
    """Make the profile that covers `shapes`: (width, height) or (width, height, batch) in pixels.

    The first is the one to be fast for; none means the bundle's default size. batch counts
    pictures, 1 when left out; guidance doubles it. Raises SourceError for an impossible shape.
    """
    wanted = [tuple(shape) for shape in shapes]
    wanted = wanted or [(manifest.default_width, manifest.default_height)]
    for shape in wanted:
        _check(shape, manifest.vae_scale_factor)
    factor, limit = manifest.vae_scale_factor, manifest.token_limit
    batches = [shape[2] if len(shape) == 3 else 1 for shape in wanted]
    sizes = {
        "batch": (HALVES[0] * min(batches), HALVES[1] * batches[0], HALVES[1] * max(batches)),
        "tokens": (limit, limit, CHUNKS * limit),
    }
    for place, name in enumerate(("width", "height")):
        sides = [shape[place] for shape in wanted]
        pixels = (min(sides), sides[0], max(sides))
        sizes[f"{name}_px"] = pixels
        sizes[name] = (pixels[0] // factor, pixels[1] // factor, pixels[2] // factor)
    return Profile(sizes=sizes)


def _check(shape: tuple[int, ...], factor: int) -> None:
    good = len(shape) in {2, 3} and all(
        factor <= side <= MAX_SIDE and side % factor == 0 for side in shape[:2]
    )
    if not good or (len(shape) == 3 and not 1 <= shape[2] <= MAX_BATCH):
        raise SourceError(
            f"{'x'.join(map(str, shape))} is no shape of pictures",
            hint=f"WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH, sides multiples of {factor} up to"
            f" {MAX_SIDE}, batch 1 to {MAX_BATCH}",
        )


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
