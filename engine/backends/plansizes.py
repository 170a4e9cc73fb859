"""Which of several plans fits the sizes that are asked for, and what it gives at these sizes.

A plan (of TensorRT, or an EP-context model) is built for some sizes of pictures; its form's key
names them. Free sizes have names in the bundles' graphs: `height` and `width` of latents, and
`height_px` and `width_px` of pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from engine.backends import Shapes
from engine.derived import Derived
from engine.manifest import TensorSpec

__all__ = ["form_with", "output_shapes", "picture_size"]

PIXELS: Final = 8  # a latent, as every manifest says


def picture_size(shapes: Shapes) -> str:
    """Give WIDTHxHEIGHT in pixels of what is drawn, as keys name it; '' where there is none."""
    for name in ("state", "sample", "latent_sample"):
        if name in shapes:
            height, width = shapes[name][-2:]
            encodes = name == "sample" and "timestep" not in shapes  # a picture, not latents
            pixels = 1 if encodes else PIXELS
            return f"{width * pixels}x{height * pixels}"
    return ""


def form_with(forms: Sequence[Derived], file: str, shapes: Shapes) -> Derived | None:
    """Give the form that has `file` and was made for these shapes, or else any that has it."""
    found = [form for form in forms if file in form.files]
    wanted = picture_size(shapes)
    fits = [form for form in found if not wanted or wanted in _built_for(form)]
    return next(iter(fits or found), None)


def output_shapes(
    inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], shapes: Shapes
) -> dict[str, tuple[int, ...]]:
    """Give the shapes of a graph's outputs at these shapes of its inputs, as far as names tell."""
    sizes = {
        free: size
        for name, port in inputs.items()
        for free, size in zip(port.shape, shapes.get(name, ()), strict=False)
        if isinstance(free, str)
    }
    for side in ("height", "width"):
        if side in sizes:
            sizes.setdefault(f"{side}_px", sizes[side] * PIXELS)
        elif f"{side}_px" in sizes:
            sizes[side] = sizes[f"{side}_px"] // PIXELS
    found: dict[str, tuple[int, ...]] = {}
    for name, port in outputs.items():
        shape = [sizes.get(each, -1) if isinstance(each, str) else each for each in port.shape]
        if min(shape, default=0) >= 0:
            found[name] = tuple(shape)
    return found


def _built_for(form: Derived) -> set[str]:
    return {shape.rpartition("x")[0] for shape in form.key.shapes}
