"""What pictures of each program say is found, whatever the file format and the encoding."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.importing import read_original
from safelight.importing.comfy import is_graph, read_graph
from safelight.importing.programs import recognise
from safelight.importing.texts import picture_texts, user_comment
from safelight.pixels import encode_picture
from tests.safelight.importing import samples
from tests.safelight.importing.samples import SAMPLES
from vault.records import METADATA_BYTES


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_each_program_is_recognised_and_read(name):
    data, program, prompt = SAMPLES[name]
    original = read_original(data, name)
    fields = original.metadata
    assert original.program == fields["imported"]["program"] == program
    assert fields["prompt"] == (prompt or "a lighthouse, (storm:1.2)")
    assert fields["negative_prompt"] == "blurry"
    assert fields["model"].removesuffix(".safetensors") == "dreamy"
    read = fields["settings"]
    wanted = {"width": 48, "height": 32, "seed": 4242, "steps": 25, "guidance_scale": 6.5}
    assert {key: read[key] for key in wanted} == wanted
    assert read["sampler"] == "dpmpp_2m"
    if name != "invoke2.png":  # it kept no schedule
        assert read["schedule"] == "karras"
    assert any(str(4242) in text for text in fields["imported"]["text"].values())


def test_a_photograph_says_nothing_and_is_taken_all_the_same():
    for data in (samples.png(), samples.jpeg({0x010F: "Camera", 0x0110: "X100"}, b"ASCII\0\0\0hi")):
        original = read_original(data, "photo")
        assert original.program == ""
        assert original.metadata["prompt"] == ""
        assert original.metadata["settings"] == {"seed": None, "width": 48, "height": 32}


def test_the_encodings_of_a_user_comment():
    for text in ("a lighthouse\nSteps: 1", "ein Leuchtturm, größer", "灯台, storm, seed: 1"):
        for code in ("utf-16-be", "utf-16-le", "utf-16", "utf-8"):
            assert user_comment(b"UNICODE\0" + text.encode(code)) == text, code
        assert user_comment(b"ASCII\0\0\0" + text.encode()) == text
        assert user_comment(b"\0" * 8 + text.encode()) == text


def test_text_that_cannot_be_sealed_is_mended_and_too_long_text_stays_in_the_picture():
    texts = {"parameters": json.dumps(samples.FOOOCUS | {"prompt": "x \ud800 y"})}
    original = read_original(samples.png(texts | {"big": "z" * 100_000}), "x")
    assert original.metadata["prompt"] == "x ? y"
    assert original.metadata["imported"]["left_out"] == ["big"]
    assert list(original.metadata["imported"]["text"]) == ["parameters"]


def test_the_largest_record_that_a_picture_can_make_is_one_that_can_be_sealed():
    texts = {
        "parameters": json.dumps(
            samples.FOOOCUS | dict.fromkeys(("prompt", "negative_prompt"), "\x01" * 70_000)
        )
    }
    metadata = read_original(samples.png(texts), "x").metadata
    assert len(metadata["prompt"]) == len(metadata["negative_prompt"]) == 65_536
    assert len(json.dumps(metadata, ensure_ascii=False).encode()) < METADATA_BYTES - 100_000


def test_wrong_numbers_are_left_out():
    wrong = {
        "seed": 1e400,
        "steps": True,
        "cfg_scale": "nan",
        "strength": [1],
        "clip_skip": "9" * 50,
    }
    text = json.dumps(samples.INVOKE | wrong)
    program, fields = recognise({"invokeai_metadata": text})
    assert program == "InvokeAI"
    assert set(fields["settings"]) == {"sampler", "schedule"}


def test_graphs_that_go_in_circles_or_nowhere_end():
    circle = {
        str(k): {
            "class_type": "KSampler",
            "inputs": {
                "positive": [str((k + 1) % 5), 0],
                "latent_image": [str((k + 1) % 5), 0],
                "seed": [str(k), 0],
            },
        }
        for k in range(5)
    }
    assert read_graph(circle)["prompt"] == ""
    assert (
        read_graph({"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0]}}})["model"]
        == ""
    )
    assert not is_graph({})
    assert not is_graph({"1": {"inputs": 3}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NODES = st.dictionaries(
    st.sampled_from("12345"),
    st.fixed_dictionaries(
        {
            "class_type": st.sampled_from(["KSampler", "SaveImage", "CLIPTextEncode", "x"])
            | VALUES,
            "inputs": st.dictionaries(
                st.sampled_from(["positive", "negative", "text", "seed", "latent_image", "images"]),
                st.tuples(st.sampled_from("12345"), st.just(0)).map(list) | VALUES,
            ),
        }
    ),
)


@settings(max_examples=150, deadline=None)
@given(NODES)
def test_any_graph_gives_fields_that_can_be_sealed(graph):
    if is_graph(graph):
        fields = read_graph(graph)
        json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()
        assert set(fields) == {"prompt", "negative_prompt", "model", "settings"}


KEYS = st.sampled_from(
    ["parameters", "UserComment", "prompt", "workflow", "sd-metadata", "invokeai_metadata", "Model"]
)
JSON_TEXTS = st.dictionaries(
    st.sampled_from(["sui_image_params", "prompt", "seed", "model", "image", "version", "sampler"]),
    VALUES,
).map(json.dumps)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JSON_TEXTS | st.text(max_size=60), max_size=3))
def test_any_texts_give_fields_that_can_be_sealed(texts):
    _, fields = recognise(texts)
    json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()
    assert set(fields) == {"prompt", "negative_prompt", "model", "settings"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["image/png", "image/jpeg", "image/webp"]))
def test_texts_of_any_bytes_are_texts(tail, media_type):
    import numpy as np

    for data in (tail, encode_picture(np.zeros((8, 8, 3), np.uint8))[:40] + tail, b"RIFF" + tail):
        assert all(isinstance(text, str) for text in picture_texts(data, media_type).values())
