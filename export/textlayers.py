"""What a text encoder gives: its result, and earlier layers for Stable Diffusion XL and clip skip.

Of XL's encoders every layer is an output, by the names of optimum's exports: its pipelines and our
engine pick the one before the last (Podell et al., arXiv 2307.01952) or, for clip skip, an earlier
one. SD 1.x and 2.x have `clip_skip_2` to `clip_skip_4`: the final layer norm of an earlier layer,
counted as the common front ends do, where 1 is the last layer (diffusers counts one less). How many
outputs there are follows from the encoder's configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.jsonfile import Fields
from export.recipes import Part, Recipe

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_text", "lacks_last_layer", "layered", "output_names", "text_results", "with_outputs"]

RESULT, POOLED = "last_hidden_state", "text_embeds"
LAYER, SKIP = "hidden_states.", "clip_skip_"
PENULTIMATE = "penultimate_hidden_state"  # the one output of XL's encoders in older bundles
DEEPEST_SKIP = 4  # 2 is common, 3 and 4 occur; what lies deeper knows little of a text
LAYERS_LIMIT = 60  # SDXL's second encoder has 32; the engine reads graphs with 64 outputs at most


def is_text(part: Part) -> bool:
    """Say whether the component is a text encoder."""
    return part.name.startswith("text_encoder")


def output_names(module: str, config: Mapping[str, object]) -> tuple[str, ...]:
    """Name the outputs of a recipe's text encoder with this configuration, in the graph's order.

    What optimum takes for the pooled text stands first. Raises BundleError for a
    configuration without a sensible number of layers.
    """
    layers = Fields(dict(config), "text_encoder/config.json").integer(
        "num_hidden_layers", 1, LAYERS_LIMIT
    )
    if module == "text_encoder":
        skips = range(2, min(DEEPEST_SKIP, layers) + 1)
        return (RESULT, *(f"{SKIP}{skip}" for skip in skips))
    every = (RESULT, *(f"{LAYER}{number}" for number in range(layers + 1)))
    return (POOLED, *every) if module == "text_encoder_projected" else every


def layered(recipe: Recipe, configs: Mapping[str, Mapping[str, object]]) -> Recipe:
    """Give the recipe with the outputs that its text encoders' configurations allow."""
    return replace(
        recipe,
        components=tuple(
            with_outputs(part, output_names(part.module, configs[part.folder]))
            if is_text(part)
            else part
            for part in recipe.components
        ),
    )


def with_outputs(part: Part, names: Sequence[str]) -> Part:
    """Give a text encoder with outputs of these names: the pooled text, or a layer's shape."""
    ports = {port.name: port for port in part.outputs}
    layer = ports[RESULT]
    outputs = (ports.get(name) or replace(layer, name=name) for name in names)
    return replace(part, outputs=tuple(outputs))


def lacks_last_layer(part: Part) -> bool:
    """Say whether a text encoder ends before its last layer, as XL's first one once did."""
    return is_text(part) and [port.name for port in part.outputs] == [PENULTIMATE]


def text_results(net: Any, input_ids: "Tensor", names: Sequence[str]) -> "tuple[Tensor, ...]":
    """Compute the named outputs of transformers' CLIP text model, i64[B, L] -> f[B, L, C] each.

    `text_embeds` f[B, P] is the projected text, of the model that has a projection. Layers are
    taken as they are, clip skips through the final layer norm, as diffusers' pipelines do.
    """
    found = net(input_ids=input_ids, output_hidden_states=True)
    layers = found.hidden_states  # 0: the embeddings; the last one is without the final norm
    norm = getattr(net, "text_model", net).final_layer_norm

    def one(name: str) -> "Tensor":
        if name.startswith(LAYER):
            return layers[int(name.removeprefix(LAYER))]
        if name.startswith(SKIP):
            return norm(layers[-int(name.removeprefix(SKIP))])
        if name == PENULTIMATE:
            return layers[-2]
        return found.text_embeds if name == POOLED else found.last_hidden_state

    return tuple(one(name) for name in names)
