"""`safelight upscale`: a picture of the vault or of a file, enlarged, sealed, with its lineage."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import safelight
from engine import Bundle, FakeBackend, Pipeline
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.upscale import Upscaler
from safelight.cli import app
from safelight.exits import exit_status
from safelight.studio import Sealed, Studio
from safelight.upscalers import take_in_upscaler
from tests.engine.upscaler_graph import write_upscaler
from vault import PassphraseUnlock, create, open_vault, passphrase_secret

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
WORDS = "a passphrase of a test"


@pytest.fixture(scope="module")  # a passphrase takes a second to become a key
def place(tmp_path_factory):
    """Give a runner in a home with an upscaler, its vault's reader, and a sealed picture's id."""
    tmp_path = tmp_path_factory.mktemp("place")
    source = write_upscaler(tmp_path / "double.onnx")
    shelf = tmp_path / "home/models"
    bundle = take_in_upscaler(source, shelf / "double", OnnxRuntimeBackend(), lambda *_: None)
    (tmp_path / "secret").write_text(WORDS + "\n")
    runner = CliRunner(
        env={
            "SAFELIGHT_HOME": str(tmp_path / "home"),
            "SAFELIGHT_VAULT": str(tmp_path / "vault"),
            "SAFELIGHT_PASSPHRASE_FILE": str(tmp_path / "secret"),
        }
    )
    pocket = Bundle.open(POCKET, hash_cache=None)
    made = pocket.request(prompt="red apple", seed=5, steps=2, width=64)
    with create(
        tmp_path / "vault",
        keystore=None,
        passphrase=passphrase_secret(WORDS),
        confirm=lambda phrase: None,
    ) as vault:
        events = Studio(Pipeline(pocket, FakeBackend()), vault).run([made], lambda: False)
        (record_id,) = [event.record_id for event in events if isinstance(event, Sealed)]

    def read(record_id):
        secret = PassphraseUnlock(passphrase_secret(WORDS))
        with open_vault(tmp_path / "vault", secret) as vault:
            record = vault.get(record_id)
            with Image.open(io.BytesIO(vault.read(record_id, "picture"))) as image:
                return record, np.asarray(image)

    return runner, read, record_id, bundle


def enlarge(runner, source):
    words = ["upscale", source, "--model", "double", "--device", "onnxruntime", "--json"]
    done = runner.invoke(app, words, catch_exceptions=False)
    return json.loads(done.stdout)


def test_a_record_is_enlarged_into_one_that_names_it(place):
    runner, read, parent, bundle = place
    line = enlarge(runner, parent[:12])
    assert (line["parent"], line["width"], line["height"]) == (parent, 128, 256)
    (record, pixels), (_, before) = read(line["id"]), read(parent)
    assert np.array_equal(pixels, Upscaler(bundle, OnnxRuntimeBackend()).upscale(before))
    assert list(record.blobs) == ["picture", "thumbnail"]
    fields = record.metadata
    assert (fields["prompt"], fields["model"]) == ("red apple", "double")
    assert (fields["parent"], fields["model_hash"]) == (parent, bundle.hash)
    listed = runner.invoke(app, ["ls"]).stdout  # a table, with a picture that has no seed
    assert listed.count("red apple") == 2


def test_what_was_enlarged_is_not_drawn_again(place, tmp_path):
    runner, _, _, _ = place
    file = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(file)
    done = runner.invoke(app, ["reproduce", enlarge(runner, str(file))["id"]])
    assert "is no picture that was drawn here" in str(done.exception)


def test_a_file_is_enlarged_and_has_no_parent(place, tmp_path):
    runner, read, _, _ = place
    file = tmp_path / "photo.png"
    Image.new("RGB", (24, 16), (10, 90, 200)).save(file)
    line = enlarge(runner, str(file))
    assert (line["parent"], line["width"], line["height"]) == ("", 48, 32)
    assert read(line["id"])[1].shape == (32, 48, 3)


def test_what_does_not_go_ends_with_its_status_and_seals_nothing(place, tmp_path):
    runner, _, parent, _ = place
    text = tmp_path / "x.png"
    text.write_text("no picture")
    before = runner.invoke(app, ["ls", "--json"]).stdout
    for source, model, status in (
        (parent, "pocket", 6),
        (parent, "gone", 6),
        ("ffffffffffff", "double", 5),
        (str(text), "double", 2),
    ):
        words = ["upscale", source, "--model", model, "--device", "onnxruntime"]
        assert exit_status(runner.invoke(app, words).exception) == status, words
    assert runner.invoke(app, ["ls", "--json"]).stdout == before
