"""Which mode a request is, and the passes of the loop that it takes.

txt2img: no picture goes in. img2img: a picture is noised to a level that `strength` sets, and drawn
on from there (Meng et al., SDEdit, arXiv 2108.01073). inpaint: the same under a mask. hires: a
second pass over the first one's result, enlarged. How many steps a strength leaves is diffusers'
rule (get_timesteps).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.errors import BundleError, RequestError
from engine.samplers import Table, write_table
from engine.schedule import Training, schedule

if TYPE_CHECKING:
    from engine.inputs import Inputs, UInt8
    from engine.manifest import Manifest
    from engine.request import GenerationRequest

__all__ = ["IMG2IMG", "INPAINT", "TXT2IMG", "Pass", "check_mode", "mode_of", "passes_of"]

TXT2IMG: Final = "txt2img"
IMG2IMG: Final = "img2img"
INPAINT: Final = "inpaint"
PAINTED = 128  # from this value on a pixel of a mask is painted over


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One run of the loop over a picture of width x height pixels.

    from_noise: it starts from noise alone, not from noised latents.
    """

    table: Table
    width: int
    height: int
    from_noise: bool


def mode_of(inputs: "Inputs") -> str:
    """Name the mode that these inputs ask for."""
    if inputs.mask.size:
        return INPAINT
    return IMG2IMG if inputs.init.size else TXT2IMG


def check_mode(request: "GenerationRequest", inputs: "Inputs", manifest: "Manifest") -> None:
    """Refuse pictures that do not fit the request or each other.

    Raises RequestError, and BundleError where the bundle is for inpainting and has no mask.
    """
    mode = mode_of(inputs)
    if manifest.unet_channels != manifest.latent_channels and mode != INPAINT:
        raise BundleError(
            f"'{manifest.name}' is an inpainting model: it draws into a picture, under a mask",
            hint="give both (--init, --mask), or take a model that is not for inpainting",
        )
    if manifest.unet_channels != manifest.latent_channels and (request.controls or request.refiner):
        raise BundleError(
            f"'{manifest.name}' is an inpainting model: ControlNets and refiners do not know its"
            " inputs",
            hint="leave them out, or inpaint with a model of another kind",
        )
    if mode == TXT2IMG:
        return
    if not inputs.init.size:
        raise RequestError("there is a mask and no picture under it", hint="--init names one")
    _check_size("init picture", inputs.init, request)
    if request.hires_scale != 1.0:
        raise RequestError(
            f"hires_scale is {request.hires_scale}; with an init picture only 1 is allowed",
            hint="enlarge the init picture instead",
        )
    if mode == INPAINT:
        _check_size("mask", inputs.mask, request)
        # the pixels that nearest-neighbour reduction to latents looks at
        factor = manifest.vae_scale_factor
        if not (inputs.mask[::factor, ::factor] >= PAINTED).any():
            raise RequestError(
                "the mask leaves nothing to paint",
                hint=f"white is painted, in areas of {factor}x{factor} pixels and more",
            )


def passes_of(
    request: "GenerationRequest", inputs: "Inputs", training: Training
) -> tuple[Pass, ...]:
    """Lay the passes of a request. Raises RequestError for a strength that leaves no step."""
    mode = mode_of(inputs)
    # diffusers begins inpainting at full strength with plain noise, and img2img does not
    from_noise = mode == TXT2IMG or (mode == INPAINT and request.strength == 1.0)
    first = Pass(
        table=_table(request, training, request.steps, 0.0 if from_noise else request.strength),
        width=request.width,
        height=request.height,
        from_noise=from_noise,
    )
    if request.hires_scale == 1.0:
        return (first,)
    width, height = request.final_size
    steps = request.hires_steps or request.steps
    table = _table(request, training, steps, request.hires_strength, name="hires_strength")
    return first, Pass(table=table, width=width, height=height, from_noise=False)


def _table(
    request: "GenerationRequest",
    training: Training,
    steps: int,
    strength: float,
    *,
    name: str = "strength",
) -> Table:
    """Tabulate the last `strength` of the schedule; 0 is the whole of it, from noise."""
    spaced = schedule(request.schedule, training, steps, request.sampler)
    if strength or name != "strength":
        kept = min(int(steps * strength), steps)
        if kept < 1:
            raise _too_weak(name, strength, steps)
        spaced = spaced.last(kept)
    return write_table(request.sampler, spaced, training, request.eta)


def _too_weak(name: str, strength: float, steps: int) -> RequestError:
    return RequestError(
        f"{name} is {strength}, which of {steps} steps leaves none to take",
        hint=f"from {math.ceil(1000 / steps) / 1000} on it leaves one; or take more steps",
    )


def _check_size(what: str, pixels: "UInt8", request: "GenerationRequest") -> None:
    height, width = pixels.shape[:2]
    if (width, height) != (request.width, request.height):
        raise RequestError(
            f"the {what} has {width}x{height} pixels and the request says"
            f" {request.width}x{request.height}; they must be equal",
        )
