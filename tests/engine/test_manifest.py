"""`safelight.json` reads back what was written and refuses everything that is not quite it."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.manifest import (
    MANIFEST_LIMIT,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest,
    write_manifest,
)

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(SHIPPED)


@pytest.fixture
def fields() -> dict:
    return json.loads((SHIPPED / "safelight.json").read_bytes())


def refuse(fields: object, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        parse_manifest(json.dumps(fields).encode())


def test_the_shipped_manifest_is_canonical(manifest):
    assert write_manifest(manifest) == (SHIPPED / "safelight.json").read_bytes()


def test_it_says_what_the_loop_needs(manifest):
    assert manifest.family == "sd1"
    assert (manifest.prediction_type, manifest.scaling_factor) == ("v_prediction", 1.0)
    assert (manifest.token_limit, manifest.embed_dim) == (32, 128)
    assert manifest.defaults.sampler == "dpmpp_2m"
    assert manifest.components["unet"].inputs["timestep"].shape == ()
    assert manifest.components["unet"].precision == "fp16"


def test_every_value_survives_writing(manifest):
    changed = replace(
        manifest,
        licence="CreativeML Open RAIL-M – à voir",
        scaling_factor=0.18215,
        files=dict(manifest.files) | {"extra/note.txt": FileEntry(bytes=0, sha256="0" * 64)},
    )
    assert parse_manifest(write_manifest(changed)) == changed


def test_outputs_keep_the_graph_s_order_since_they_are_taken_by_place(manifest):
    text = manifest.components["text_encoder"]
    (spec,) = text.outputs.values()
    outputs = {"text_embeds": spec, "last_hidden_state": spec, "hidden_states.0": spec}
    parts = dict(manifest.components) | {"text_encoder": replace(text, outputs=outputs)}
    read = parse_manifest(write_manifest(replace(manifest, components=parts)))
    assert list(read.components["text_encoder"].outputs) == list(outputs)


def test_what_cannot_be_read_is_not_written(manifest):
    with pytest.raises(BundleError, match="scaling_factor"):
        write_manifest(replace(manifest, scaling_factor=-1.0))


def test_a_newer_format_is_refused_with_the_way_out(fields):
    fields["format_version"] = 2
    with pytest.raises(BundleError, match="format version 2") as caught:
        parse_manifest(json.dumps(fields).encode())
    assert "update" in caught.value.hint


@pytest.mark.parametrize("key", json.loads((SHIPPED / "safelight.json").read_bytes()))
def test_no_field_may_be_missing(fields, key):
    del fields[key]
    refuse(fields, f"lacks '{key}'")


def test_an_unknown_field_is_refused(fields):
    fields["run_this"] = "os.system"
    refuse(fields, "unknown fields: run_this")


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("family",), "sd9", "one of sd1"),
        (("name",), "../pocket", "'name'"),
        (("name",), "", "'name'"),
        (("token_limit",), 2, "from 3 to"),
        (("token_limit",), 77.0, "a whole number is needed"),
        (("token_limit",), True, "a whole number is needed"),
        (("latent_channels",), 16, "from 4 to 4"),
        (("scaling_factor",), "0.18215", "a number is needed"),
        (("scaling_factor",), 10**400, "is allowed"),
        (("default_width",), 130, "no multiple of 8"),
        (("created",), "yesterday", "'created'"),
        (("prediction_type",), "flow", "one of epsilon"),
        (("defaults", "sampler"), "eular", "one of ddim"),
        (("defaults", "steps"), 0, "from 1 to 1000"),
        (("latent_rgb", "factors"), [[1, 2, 3]] * 3, "3 rows"),
        (("latent_rgb", "bias"), [1, 2], "2 numbers"),
        (("source", "kind"), "pickle", "one of diffusers"),
        (("source", "name"), "a\\b", "'name'"),
        (("source", "sha256"), "zz", "'sha256'"),
        (("components", "unet", "file"), "../unet/model.onnx", "'file'"),
        (("components", "unet", "file"), "/unet/model.onnx", "'file'"),
        (("components", "unet", "file"), "unet/.model.onnx", "'file'"),
        (("components", "unet", "file"), "unet/other.onnx", "without hash"),
        (("components", "unet", "precision"), "int2", "one of fp16"),
        (("components", "unet", "inputs", "sample", "dtype"), "object", "one of float16"),
        (("components", "unet", "inputs", "sample", "shape"), [0], "from 1 to"),
        (("components", "unet", "inputs", "sample", "shape"), [None], "a whole number"),
        (("files", "unet/model.onnx", "bytes"), -1, "from 0 to"),
        (("files", "unet/model.onnx", "sha256"), "A" * 64, "'sha256'"),
        (("parity", "measures"), [1], "an object is needed"),
        (("parity", "measures"), "none", "a list is needed"),
        (("components",), None, "an object is needed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(fields, path, value, match):
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    refuse(fields, match)


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/passwd", "c:\\x", ".git/config", ""])
def test_a_file_outside_the_bundle_is_refused(fields, name):
    fields["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    refuse(fields, "'file'")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"name": 1, "name": 2}',
        b'{"scaling_factor": NaN}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_good_json_is_refused(data):
    with pytest.raises(BundleError):
        parse_manifest(data)


def test_a_huge_manifest_is_not_read(tmp_path):
    (tmp_path / "safelight.json").write_bytes(b" " * (MANIFEST_LIMIT + 1))
    with pytest.raises(BundleError, match="more than"):
        read_manifest(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = list(json.loads((SHIPPED / "safelight.json").read_bytes()))


@given(key=st.sampled_from(KEYS), value=JSON)
def test_any_foreign_value_is_read_or_refused_but_never_crashes(key, value):
    fields = json.loads((SHIPPED / "safelight.json").read_bytes())
    fields[key] = value
    with suppress(BundleError):
        assert isinstance(parse_manifest(json.dumps(fields).encode()), Manifest)
