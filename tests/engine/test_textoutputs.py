"""Of optimum's text encoders the layer before the last is taken, and the projected text."""

from dataclasses import replace
from pathlib import Path

import pytest

import safelight
from engine.manifest import TensorSpec, read_manifest
from engine.textoutputs import penultimate_layer, text_outputs

SPEC = TensorSpec(dtype="float32", shape=("batch", 77, 8))
LAYERS = [f"hidden_states.{number}" for number in range(13)]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["last_hidden_state", "pooler_output", *LAYERS], "hidden_states.11"),
        (LAYERS[::-1], "hidden_states.11"),  # by number, not by place or by text
        (["last_hidden_state", "pooler_output"], ""),
        (["hidden_states.0"], ""),
        (["hidden_states.2"], ""),
        (["hidden_states.00099999999"], ""),
    ],
)
def test_the_layer_before_the_last(names, wanted):
    assert penultimate_layer(dict.fromkeys(names)) == wanted


def described(family, **outputs):
    manifest = read_manifest(Path(safelight.__file__).parent / "models" / "pocket")
    text = manifest.components["text_encoder"]
    texts = {
        name: replace(text, outputs=dict.fromkeys(names, SPEC)) for name, names in outputs.items()
    }
    return replace(manifest, family=family, components=dict(manifest.components) | texts)


def test_optimum_s_encoders_are_read_by_place():
    manifest = described(
        "sdxl",
        text_encoder=["last_hidden_state", "pooler_output", *LAYERS],
        text_encoder_2=["text_embeds", "last_hidden_state", *LAYERS],
    )
    assert text_outputs(manifest) == ((13,), (13, 0))


def test_our_own_and_sd1_s_are_taken_as_they_are():
    own = ["penultimate_hidden_state", "text_embeds"]
    manifest = described("sdxl", text_encoder=own[:1], text_encoder_2=own)
    assert text_outputs(manifest) == ((), ())
    layers = described("sd1", text_encoder=["last_hidden_state", "pooler_output", *LAYERS])
    assert text_outputs(layers) == ((),)
