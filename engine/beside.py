"""Bundles beside the one that draws: ControlNets, a refiner, an upscaler, by the names that a
request calls them by.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from engine.controlnet import check_fit
from engine.errors import BundleError, RequestError
from engine.inputs import Inputs
from engine.refiner import check_refiner
from engine.request import GenerationRequest
from engine.upscale import MAX_SIDE, read_scale

if TYPE_CHECKING:
    from engine.bundle import Bundle

__all__ = ["NOTHING_BESIDE", "Beside", "check_beside", "names_beside"]

Beside = Mapping[str, "Bundle"]
UNIT = 8  # pixels; sides are multiples
NOTHING_BESIDE: Final[Beside] = MappingProxyType({})


def names_beside(request: GenerationRequest) -> tuple[str, ...]:
    """Name the bundles that a request needs beside its model, each once, in order."""
    return tuple(dict.fromkeys(_names(request)))


def check_beside(
    request: GenerationRequest, inputs: Inputs, base: "Bundle", beside: Beside
) -> None:
    """Refuse what a request names and does not fit, before anything is loaded.

    Raises BundleError for a bundle that is missing or of another kind, RequestError for pictures
    that do not fit the request.
    """
    for name in names_beside(request):
        if name not in beside:
            raise BundleError(
                f"the request names '{name}', which was not opened beside '{base.name}'"
            )
    for control in request.controls:
        check_fit(base.manifest, beside[control.model].manifest)
    if request.refiner:
        check_refiner(base, beside[request.refiner])
    if request.upscaler:
        scale, side = read_scale(beside[request.upscaler]), max(request.final_size)
        if side * scale > MAX_SIDE:
            raise RequestError(
                f"{side} pixels made {scale} times as large are {side * scale}; at most {MAX_SIDE}"
                " a side can be made"
            )
    _check_pictures(request, inputs)


def _names(request: GenerationRequest) -> Iterator[str]:
    yield from (control.model for control in request.controls)
    yield from (name for name in (request.refiner, request.upscaler) if name)


def _check_pictures(request: GenerationRequest, inputs: Inputs) -> None:
    wanted, given = len(request.controls), len(inputs.controls)
    if wanted != given:
        raise RequestError(
            f"the request has {wanted} ControlNets and {given} pictures for them: each takes one"
        )
    for control, picture in zip(request.controls, inputs.controls, strict=True):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != "uint8":
            raise RequestError(
                f"the picture of ControlNet '{control.model}' is {picture.dtype}"
                f"{list(picture.shape)}; uint8[height, width, 3] is needed"
            )
        _check_proportion(control.model, picture.shape[:2], request)


def _check_proportion(name: str, size: tuple[int, ...], request: GenerationRequest) -> None:
    """Refuse a picture that would be stretched; it may be of any size."""
    height, width = size
    # Sides are multiples of 8 pixels, so that is how near a picture's proportion can be met.
    off = abs(request.width * height - request.height * width)
    if min(size) > 0 and off < UNIT * max(size):
        return
    high = max(UNIT, round(height * (request.width / max(width, 1)) / UNIT) * UNIT)
    raise RequestError(
        f"the picture of ControlNet '{name}' has {width}x{height} pixels, another proportion than"
        f" the {request.width}x{request.height} to draw",
        hint=f"crop it, or draw {request.width}x{min(high, MAX_SIDE)}",
    )
