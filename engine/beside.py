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
        scale, side = read_scale(beside[request.upscaler]), max(request.width, request.height)
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
        shape, size = picture.shape, (request.height, request.width, 3)
        if shape != size or picture.dtype != "uint8":
            raise RequestError(
                f"the picture of ControlNet '{control.model}' is {picture.dtype}{list(shape)};"
                f" uint8{list(size)} is needed, the picture's own size"
            )
