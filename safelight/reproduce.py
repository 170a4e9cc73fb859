"""Make a sealed picture again, and say whether it came out the same or what was different."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import ApplicationError, ExitStatus
from safelight.recipe import Recipe, decode_pixels, read_recipe
from safelight.records import picture_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine import Bundle, Choice, Picture
    from safelight.shelf import Shelf
    from vault import Record, Vault

__all__ = [
    "Difference",
    "Likeness",
    "Original",
    "compare",
    "differences",
    "find_bundle",
    "find_choice",
    "open_original",
]

PEAK: Final = 255.0
# What a record says of the circumstances, in the order in which they are worth knowing.
_CIRCUMSTANCES: Final = (
    "model_hash",
    "beside",
    "backend",
    "device",
    "precision",
    "libraries",
    "version",
    "repairs",
    "flagged",
)


class MissingModelError(ApplicationError):
    """The model that drew the picture is not on the shelf."""

    status = ExitStatus.NOT_FOUND


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A picture as it lies in the vault. pixels: uint8[H, W, 3]."""

    record: "Record"
    recipe: Recipe
    pixels: "NDArray[np.uint8]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """How near two pictures are. equal: every byte. psnr: dB of a peak of 255, infinite where they
    are equal, NaN where their sizes differ. largest: difference of any value, 0 to 255.
    """

    equal: bool
    psnr: float
    largest: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One circumstance that is not what it was; `then` and `now` as the records hold it."""

    what: str
    then: Any
    now: Any


def open_original(vault: "Vault", record_id: str) -> Original:
    """Open a picture and read how it was made. Nothing leaves the process: it is not a disclosure.

    Raises RecipeError, and what the vault raises.
    """
    record = vault.get(record_id)
    recipe = read_recipe(record, lambda name: vault.read(record_id, name))
    return Original(
        record=record, recipe=recipe, pixels=decode_pixels(vault.read(record_id, "picture"))
    )


def find_bundle(shelf: "Shelf", recipe: Recipe) -> "Bundle":
    """Open the bundle of the recipe's name, whatever its hash: the comparison tells.

    Raises MissingModelError where there is none, or none of a name that takes part beside it, and
    BundleError for one that is damaged.
    """
    from engine.beside import names_beside

    there = {entry.name for entry in shelf.entries()}
    for name in (recipe.model, *names_beside(recipe.request)):
        if name not in there:
            raise MissingModelError(
                f"the model '{name}' that drew this picture is not on the shelf",
                hint="export or add it again under that name",
            )
    return shelf.open(recipe.model)


def find_choice(recipe: Recipe, device: str | None, precision: str | None, cache: Any) -> "Choice":
    """Choose what computes: as asked, and where nothing is asked as it was then.

    Where that cannot be had, `auto` takes its place, and the reason of the choice says so. Raises
    DeviceError for what was asked for and cannot be had.
    """
    from dataclasses import replace

    from engine import DeviceError, RequestError, choose

    wanted = device or recipe.device, precision or ("auto" if device else recipe.precision)
    try:
        return choose(*wanted, cache)
    except (DeviceError, RequestError) as error:
        if device is not None or precision is not None:
            raise
        choice = choose("auto", "auto", cache)
        reason = f"{choice.reason}; not on {wanted[0]} in {wanted[1]} as then: {error}"
        return replace(choice, reason=reason)


def compare(then: "NDArray[np.uint8]", now: "NDArray[np.uint8]") -> Likeness:
    """Compare two pictures uint8[H, W, 3], value by value."""
    import numpy as np

    if then.shape != now.shape:
        return Likeness(equal=False, psnr=math.nan, largest=int(PEAK))
    apart = np.abs(then.astype(np.int16) - now.astype(np.int16))
    error = float(np.mean(np.square(apart, dtype=np.float64)))
    psnr = 10.0 * math.log10(PEAK**2 / error) if error else math.inf
    return Likeness(equal=not apart.any(), psnr=psnr, largest=int(apart.max()))


def differences(then: Mapping[str, Any], picture: "Picture") -> list[Difference]:
    """List what is not as the record has it; what an old record does not say is passed over."""
    now = picture_metadata(picture)
    apart = [each for name in _CIRCUMSTANCES for each in _differ(name, then, now)]
    at_once = then.get("settings", {}).get("batch_size", 1), picture.request.batch_size
    if at_once[0] != at_once[1]:  # it is drawn alone now, and rounded in another order
        apart.append(Difference(what="batch_size", then=at_once[0], now=at_once[1]))
    return apart


def _differ(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    if name not in then or name not in now or then[name] == now[name]:
        return
    before, after = then[name], now[name]
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield Difference(what=name, then=before, now=after)
        return
    for part in sorted({*before, *after}):
        if before.get(part) != after.get(part):
            yield Difference(what=str(part), then=before.get(part, ""), now=after.get(part, ""))
