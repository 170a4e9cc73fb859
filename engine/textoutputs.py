"""Which outputs of a text encoder's graph the network is given.

Our own graphs have no others. Those of optimum (`optimum.exporters.onnx`) give all layers: of
Stable Diffusion XL's encoders `last_hidden_state`, `pooler_output` or `text_embeds`, and
`hidden_states.0` to `hidden_states.N`, of which the one before the last is meant (Podell et al.,
arXiv 2307.01952).
"""

import re
from collections.abc import Mapping

from engine.manifest import Manifest

__all__ = ["penultimate_layer", "text_outputs"]

LAYER = r"hidden_states\.(\d{1,3})"
POOLED = "text_embeds"


def penultimate_layer(outputs: Mapping[str, object]) -> str:
    """Name the output that holds the layer before the last, or "" where layers are no outputs."""
    found = (re.fullmatch(LAYER, name) for name in outputs)
    numbers = [int(match[1]) for match in found if match]
    name = f"hidden_states.{max(numbers, default=0) - 1}"
    return name if name in outputs else ""


def text_outputs(manifest: Manifest) -> tuple[tuple[int, ...], ...]:
    """Give, for each text encoder, the places of the outputs that are used; none means all.

    By place, since a runtime may know an output by another of its names.
    """
    return tuple(_places(manifest, name) for name in manifest.text_encoders)


def _places(manifest: Manifest, encoder: str) -> tuple[int, ...]:
    component = manifest.components.get(encoder)
    if component is None or not manifest.family.startswith("sdxl"):
        return ()
    layer = penultimate_layer(component.outputs)
    if not layer:
        return ()
    names = list(component.outputs)
    return tuple(names.index(name) for name in (layer, POOLED) if name in names)
