"""ControlNets beside a unet: what they add to its skip connections, in each step.

A ControlNet is the unet's way down with a picture added; it gives one residual for each skip
connection and one for the middle (Zhang et al., arXiv 2302.05543). Those of several are summed. The
base bundle's `unet_control` is the unet with these residuals as further inputs; with zeros it
computes what the plain unet does, so it alone is loaded, whether a ControlNet acts or not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session
from engine.control import Control
from engine.errors import BundleError
from engine.moment import Moment

if TYPE_CHECKING:
    from engine.manifest import Component, Manifest

__all__ = ["FITTING", "UNET_CONTROL", "Residuals", "check_fit", "fitted", "hint", "residual_shapes"]

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
UNET_CONTROL = "unet_control"
RESIDUAL = r"(down_block_res_sample_\d{1,2}|mid_block_res_sample)"
SIDE = r"(height|width)(?:_([1-9]\d?))?"  # as exported: height_4 is a quarter, rounded up
# Family of a base -> that of the ControlNets that fit. None is exported for SD 2.x.
FITTING: Mapping[str, str] = {"sd1": "controlnet-sd1", "sdxl": "controlnet-sdxl"}


def check_fit(base: "Manifest", net: "Manifest") -> None:
    """Raise BundleError where this ControlNet cannot steer this base."""
    wanted = FITTING.get(base.family)
    if not net.family.startswith("controlnet-"):
        raise BundleError(
            f"'{net.name}' is of family {net.family}: it is no ControlNet",
            hint="`safelight models ls` names the families",
        )
    if net.family != wanted:
        raise BundleError(
            f"ControlNet '{net.name}' is of family {net.family} and does not fit '{base.name}' of"
            f" family {base.family}",
            hint=f"one of family {wanted} does" if wanted else "no ControlNet here does",
        )
    unet = base.components.get(UNET_CONTROL)
    if unet is None:
        raise BundleError(
            f"'{base.name}' has no unet that a ControlNet can steer",
            hint="export the checkpoint again with `--with control`",
        )
    taken, given = (
        {name: spec.shape[1:] for name, spec in ports.items() if re.fullmatch(RESIDUAL, name)}
        for ports in (unet.inputs, net.components["controlnet"].outputs)
    )
    if (taken, base.embed_dim, base.pooled_dim) != (given, net.embed_dim, net.pooled_dim):
        raise BundleError(
            f"ControlNet '{net.name}' was made for a unet of another shape than that of"
            f" '{base.name}'"
        )


def residual_shapes(
    unet: "Component", halves: int, height: int, width: int
) -> dict[str, tuple[int, ...]]:
    """Give the shape of each residual that `unet_control` takes, by name, in the order in which a
    ControlNet gives them; height, width: of the latents. Raises BundleError where its manifest
    names sizes in another way than ours do.
    """
    latents = {"height": height, "width": width}
    shapes: dict[str, tuple[int, ...]] = {}
    names = (name for name in unet.inputs if re.fullmatch(RESIDUAL, name))
    # A manifest's keys are sorted as text: 10 before 2.
    for name in sorted(names, key=lambda name: (name[0] == "m", len(name), name)):
        spec = unet.inputs[name]
        found = [re.fullmatch(SIDE, str(side)) for side in spec.shape[2:]]
        channels = spec.shape[1] if len(spec.shape) == 4 else ""
        sides = [-(-latents[each[1]] // int(each[2] or 1)) for each in found if each]
        if not isinstance(channels, int) or len(sides) != 2:
            raise BundleError(f"{UNET_CONTROL} takes '{name}' in a shape that nothing is known of")
        shapes[name] = (halves, channels, *sides)
    return shapes


def fitted(picture: UInt8, width: int, height: int) -> UInt8:
    """Give the picture uint8[H, W, 3] in this size: as it is, or resized as diffusers does it."""
    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def hint(picture: UInt8, halves: int) -> Float32:
    """Turn the picture that steers, uint8[H, W, 3], into f32[halves, 3, H, W] in 0..1."""
    levels = picture.transpose(2, 0, 1)[None].astype(np.float32)
    levels /= np.float32(255.0)
    return np.repeat(levels, halves, axis=0)


class Residuals:
    """Gives what `unet_control` takes beside the unet's own inputs, in each step of one picture.

    One picture at a time: what is given holds until the next call.
    """

    def __init__(
        self,
        nets: Sequence[tuple[Control, Session, UInt8]],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """nets: the ControlNets, loaded, with their pictures uint8[H, W, 3]. shapes: as
        `residual_shapes` gives them.
        """
        halves = next((shape[0] for shape in shapes.values()), 1)
        self._nets = [(each, session, hint(picture, halves)) for each, session, picture in nets]
        self._sum: dict[str, Float32] = {
            name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()
        }
        self._zero = True

    def __call__(self, inputs: Mapping[str, Array], moment: Moment) -> Mapping[str, Array]:
        """Run the ControlNets that act at this moment on the unet's inputs; sum their residuals.

        Raises BundleError where one gives other shapes.
        """
        acting = [each for each in self._nets if each[0].acts_at(moment)]
        if acting or not self._zero:
            for value in self._sum.values():
                value.fill(0.0)
        self._zero = not acting
        own = dict(inputs)
        own["sample"] = inputs["sample"][:, :4]  # an inpainting unet's has mask and picture behind
        for control, session, picture in acting:
            own["controlnet_cond"] = picture
            own["conditioning_scale"] = np.array(control.scale, dtype=np.float32)
            # By place, since a runtime may know an output by another of its names.
            self._add(control, list(session.run_all(own).values()))
        return self._sum

    def _add(self, control: Control, found: Sequence[Float32]) -> None:
        shapes = [each.shape for each in found]
        if shapes != [each.shape for each in self._sum.values()]:
            raise BundleError(
                f"ControlNet '{control.model}' gives other residuals than the unet takes"
            )
        for total, value in zip(self._sum.values(), found, strict=True):
            np.add(total, value, out=total)
