"""Of optimum's text encoders the layer before the last is taken, and the projected text."""

from dataclasses import replace
from pathlib import Path

import pytest

import safelight
from engine.errors import RequestError
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
    """Give a manifest as it is read from its file, names sorted, and the order of the graphs."""
    manifest = read_manifest(Path(safelight.__file__).parent / "models" / "pocket")
    text = manifest.components["text_encoder"]
    texts = {
        name: replace(text, outputs=dict.fromkeys(sorted(names), SPEC))
        for name, names in outputs.items()
    }
    components = dict(manifest.components) | texts
    return replace(manifest, family=family, components=components), outputs.__getitem__


def test_optimum_s_encoders_are_read_by_place():
    manifest, order = described(
        "sdxl",
        text_encoder=["last_hidden_state", "pooler_output", *LAYERS],
        text_encoder_2=["text_embeds", "last_hidden_state", *LAYERS],
    )
    assert text_outputs(manifest, order) == ((13,), (13, 0))


def test_our_own_and_sd1_s_are_taken_as_they_are():
    own = ["penultimate_hidden_state", "text_embeds"]
    manifest, order = described("sdxl", text_encoder=own[:1], text_encoder_2=own)
    assert text_outputs(manifest, order) == ((), ())
    layers, order = described("sd1", text_encoder=["last_hidden_state", "pooler_output", *LAYERS])
    assert text_outputs(layers, order) == ((),)


def test_a_clip_skip_takes_an_earlier_layer_of_xl_counted_from_the_usual_one():
    """diffusers takes hidden_states[-(clip_skip + 2)] of XL, and counts one less than we do."""
    larger = [f"hidden_states.{number}" for number in range(33)]
    manifest, order = described(
        "sdxl",
        text_encoder=["last_hidden_state", *LAYERS],
        text_encoder_2=["text_embeds", *larger],
    )
    for skip in (1, 2, 5, 12):
        wanted = LAYERS[-(skip + 1)], larger[-(skip + 1)]
        places = 1 + LAYERS.index(wanted[0]), 1 + larger.index(wanted[1])
        assert text_outputs(manifest, order, skip) == ((places[0],), (places[1], 0))


def test_a_clip_skip_of_sd1_is_an_output_by_its_name():
    names = ["last_hidden_state", "clip_skip_2", "clip_skip_3"]
    manifest, order = described("sd1", text_encoder=names)
    assert [text_outputs(manifest, order, skip) for skip in (1, 2, 3)] == [((),), ((1,),), ((2,),)]
    with pytest.raises(RequestError, match="for a clip skip of 4") as caught:
        text_outputs(manifest, order, 4)
    assert caught.value.hint == "it has those for 1, 2, 3"


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("sd1", ["last_hidden_state", "pooler_output"]),
        ("sd1", LAYERS),  # the last layer's norm is missing behind them
        ("sdxl", ["penultimate_hidden_state"]),
    ],
)
def test_a_bundle_without_earlier_layers_says_what_to_do(family, names):
    manifest, order = described(family, text_encoder=names)
    with pytest.raises(RequestError, match="for a clip skip of 2") as caught:
        text_outputs(manifest, order, 2)
    assert "export the checkpoint again" in caught.value.hint
