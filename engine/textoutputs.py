"""Which outputs of a text encoder's graph the network is given.

Stable Diffusion XL's encoders give `last_hidden_state`, `pooler_output` or `text_embeds`, and
`hidden_states.0` to `hidden_states.N`, of which the one before the last is meant (Podell et al.,
arXiv 2307.01952); graphs with nothing but that layer are taken as they are. For 1.x and 2.x it is
the last layer.

A clip skip takes an earlier layer: 1 is the usual one, 2 the one before it, as the AUTOMATIC1111
web interface counts (diffusers counts one less). For 1.x and 2.x the last layer's norm belongs
behind it, so the graph gives it ready as `clip_skip_2`, `clip_skip_3`...
"""

import re
from collections.abc import Callable, Mapping, Sequence

from engine.errors import RequestError
from engine.manifest import Manifest
from engine.request import MAX_CLIP_SKIP

__all__ = ["penultimate_layer", "text_outputs"]

LAYER = r"hidden_states\.(\d{1,3})"
POOLED = "text_embeds"


def penultimate_layer(outputs: Mapping[str, object]) -> str:
    """Name the output that holds the layer before the last, or "" where layers are no outputs."""
    found = (re.fullmatch(LAYER, name) for name in outputs)
    numbers = [int(match[1]) for match in found if match]
    name = f"hidden_states.{max(numbers, default=0) - 1}"
    return name if name in outputs else ""


def text_outputs(
    manifest: Manifest, ordered: Callable[[str], Sequence[str]], clip_skip: int = 1
) -> tuple[tuple[int, ...], ...]:
    """Give, for each text encoder, the places of the outputs that are used; none means all.

    By place, since a runtime may know an output by another of its names. ordered: names a
    component's outputs in the order of its graph. Raises RequestError where the bundle does not
    give the layer of a clip skip.
    """
    return tuple(_places(manifest, ordered, name, clip_skip) for name in manifest.text_encoders)


def _places(
    manifest: Manifest, ordered: Callable[[str], Sequence[str]], encoder: str, clip_skip: int
) -> tuple[int, ...]:
    component = manifest.components.get(encoder)
    names = [] if component is None else list(component.outputs)
    normed = not manifest.family.startswith("sdxl")
    layer = _layer(names, clip_skip, normed=normed)
    if layer in names:
        order = ordered(encoder)
        return tuple(order.index(name) for name in (layer, POOLED) if name in names)
    if clip_skip == 1:
        return ()
    given = [
        skip for skip in range(2, MAX_CLIP_SKIP + 1) if _layer(names, skip, normed=normed) in names
    ]
    raise RequestError(
        f"bundle '{manifest.name}' has no text encoder's layer for a clip skip of {clip_skip}",
        hint=f"it has those for 1, {', '.join(map(str, given))}"
        if given
        else "export the checkpoint again, which adds earlier layers, or leave clip skip at 1",
    )


def _layer(names: Sequence[str], clip_skip: int, *, normed: bool) -> str:
    """Name the output for a clip skip. normed: the last layer's norm belongs behind it."""
    if normed:
        return f"clip_skip_{clip_skip}"  # no graph has a clip_skip_1: it is what comes first
    usual = penultimate_layer(dict.fromkeys(names))
    number = int(usual.rpartition(".")[2]) if usual else 0
    return f"hidden_states.{number - clip_skip + 1}" if usual else ""
