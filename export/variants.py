"""Second graphs of a unet that share its weights: one that takes a ControlNet's residuals, the pair
of deep-feature reuse (Ma et al., DeepCache, arXiv 2312.00858), one with thinner attention.

Each lies beside the unet's own graph and reads the same external data: no weight is there twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from engine.errors import BundleError
from engine.jsonfile import Fields
from export.checkpoint import Checkpoint
from export.errors import SourceError
from export.recipes import GUIDANCE_INPUT, Part, Port

__all__ = [
    "DEEP_FEATURE",
    "MID_RESIDUAL",
    "VARIANTS",
    "residual_ports",
    "variant_parts",
    "with_variants",
]

# What `--with` names -> the components that it adds. The order of export, too.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "control": ("unet_control",),
    "shallow": ("unet_deep", "unet_shallow"),
    "thin": ("unet_thin",),
}
DEEP_FEATURE = "deep_feature"
MID_RESIDUAL = "mid_block_res_sample"
LEVELS_LIMIT = 4  # resolutions of a unet; more are of no Stable Diffusion


def with_variants(checkpoint: Checkpoint, variants: Collection[str]) -> Checkpoint:
    """Add the components that `variants` (keys of VARIANTS) name. Raises SourceError where the
    checkpoint has no unet that they could be made of.
    """
    if not variants:
        return checkpoint
    recipe = checkpoint.recipe
    unet = next((part for part in recipe.components if part.name == "unet"), None)
    if unet is None:
        raise SourceError(
            f"'{checkpoint.pieces.label}' has no unet, which --with {min(variants)} is made of",
            hint="give --with to the Stable Diffusion checkpoint that it goes with",
        )
    if any(port == GUIDANCE_INPUT for port in unet.inputs):
        raise SourceError(
            f"--with {min(variants)} does not go with a unet that takes the guidance scale as an"
            " input",
            hint="leave it out: such a model needs few steps as it is",
        )
    names = [name for variant in VARIANTS if variant in variants for name in VARIANTS[variant]]
    parts = variant_parts(unet, names, checkpoint.configs["unet"])
    changed = replace(recipe, components=(*recipe.components, *parts))
    return replace(checkpoint, pieces=replace(checkpoint.pieces, recipe=changed))


def variant_parts(
    unet: Part, names: Collection[str], config: Mapping[str, object]
) -> tuple[Part, ...]:
    """Describe the components `names` beside `unet`. Raises SourceError on a bad config."""
    parts: dict[str, Part] = {}
    if "unet_control" in names:
        inputs = (*unet.inputs, *residual_ports(config, "unet"))
        parts["unet_control"] = replace(unet, name="unet_control", inputs=inputs)
    if "unet_deep" in names or "unet_shallow" in names:
        widths, _ = _grid(config, "unet")
        if len(widths) < 2:
            raise SourceError("the unet has one resolution: there is nothing deep to reuse")
        # What comes up from the second resolution, already doubled in height and width.
        shape = ("batch", widths[1], "height", "width")
        port = Port(name=DEEP_FEATURE, dtype="float32", shape=shape)
        parts["unet_deep"] = replace(unet, name="unet_deep", outputs=(*unet.outputs, port))
        parts["unet_shallow"] = replace(unet, name="unet_shallow", inputs=(*unet.inputs, port))
    if "unet_thin" in names:
        parts["unet_thin"] = replace(unet, name="unet_thin")
    return tuple(
        replace(parts[name], module=name, shares=unet.name) for name in parts if name in names
    )


def residual_ports(config: Mapping[str, object], owner: str) -> tuple[Port, ...]:
    """Describe what a ControlNet gives and its unet takes: one f[B, C, h, w] for each skip
    connection in its order, then the middle's. Sizes below the latents' are rounded up.

    config: of either network. Raises SourceError on a bad one.
    """
    widths, layers = _grid(config, owner)
    skips = [(widths[0], 0)]
    for level, (width, count) in enumerate(zip(widths, layers, strict=True)):
        skips += [(width, level)] * count
        if level < len(widths) - 1:
            skips.append((width, level + 1))
    named = [(f"down_block_res_sample_{place}", *skip) for place, skip in enumerate(skips)]
    named.append((MID_RESIDUAL, widths[-1], len(widths) - 1))
    return tuple(
        Port(name=name, dtype="float32", shape=("batch", width, *_sides(level)))
        for name, width, level in named
    )


def _sides(level: int) -> tuple[str, str]:
    return (f"height_{2**level}", f"width_{2**level}") if level else ("height", "width")


def _grid(config: Mapping[str, object], owner: str) -> tuple[list[int], list[int]]:
    """Give channels and layers of each resolution."""
    where = f"{owner}/config.json"
    try:
        fields = Fields(dict(config), where)
        widths = _whole_numbers(fields.items("block_out_channels"), where, 1 << 16)
        given = config.get("layers_per_block", 2)
        each = given if isinstance(given, list) else [given] * len(widths)
        layers = _whole_numbers(each, where, 16)
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(str(error), hint=error.hint) from error
    if not 1 <= len(widths) <= LEVELS_LIMIT or len(layers) != len(widths):
        raise SourceError(f"{where} has {len(widths)} resolutions; 1 to {LEVELS_LIMIT} are known")
    return widths, layers


def _whole_numbers(values: list[object], where: str, high: int) -> list[int]:
    return [Fields({"size": value}, where).integer("size", 1, high) for value in values]
