"""`--control`, `--refiner`, `--upscaler`: what is read, what is opened, what is sealed."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, RequestError
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.control import Control
from safelight.addons import hashes_beside, open_beside, read_controls
from safelight.cli import app
from safelight.exits import UsageError, exit_status
from safelight.reproduce import compare, differences, open_original
from safelight.shelf import Shelf
from safelight.studio import Made, Sealed, Studio
from safelight.upscalers import take_in_upscaler
from tests.engine.beside_bundles import controlled, controlnet
from tests.engine.upscaler_graph import write_upscaler
from vault import Kind, MemoryKeyStore, create

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def base():
    return controlled(Bundle.open(POCKET, hash_cache=None))


@pytest.fixture
def file(tmp_path):
    """Give a picture in a file whose name holds what separates settings."""
    pixels = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    path = tmp_path / "a=b, c,d.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_control_is_a_name_a_file_and_settings(file):
    read = read_controls([f"edges={file}", f"depth={file},scale=0.5,end=.75 , start=0.25"])
    assert read.controls == (
        Control(model="edges"),
        Control(model="depth", scale=0.5, start=0.25, end=0.75),
    )
    assert [each.shape for each in read.inputs.controls] == [(128, 128, 3)] * 2
    assert read_controls([]).controls == ()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("edges", UsageError, "needs a ControlNet and a picture"),
        ("=FILE", UsageError, "needs a ControlNet and a picture"),
        ("edges=", UsageError, "needs a ControlNet and a picture"),
        ("edges=FILE,scale=lots", UsageError, "scale of --control 'edges' is no number"),
        ("edges=FILE,scale=1,scale=2", UsageError, "has scale twice"),
        ("edges=FILE,scale=3", RequestError, "from 0 to 2 is allowed"),
        ("edges=FILE,scale=nan", RequestError, "from 0 to 2 is allowed"),
        ("edges=FILE,start=0.5,end=0.5", RequestError, "the start before the end"),
        ("edges=NONE", FileNotFoundError, "NONE"),
        ("edges=FILE,strength=1", FileNotFoundError, "strength"),  # a part of the name
    ],
)
def test_what_cannot_be_read_is_one_sentence(file, text, error, match):
    with pytest.raises(error, match=match) as raised:
        read_controls([text.replace("FILE", str(file))])
    assert exit_status(raised.value) == (5 if error is FileNotFoundError else 2)


@pytest.fixture
def home(tmp_path):
    """Give a runner in a home whose shelf has an upscaler."""
    source = write_upscaler(tmp_path / "double.onnx")
    take_in_upscaler(source, tmp_path / "home/models/double", OnnxRuntimeBackend(), lambda *_: None)
    return CliRunner(env={"SAFELIGHT_HOME": str(tmp_path / "home")})


def test_bundles_come_from_the_shelf_each_once(home, base, tmp_path):
    shelf = Shelf(tmp_path / "home/models", tmp_path / "home/cache")
    made = base.request(prompt="x", seed=1, upscaler="double")
    found = open_beside(shelf, [made, made, base.request(prompt="x", seed=1)])
    assert {name: each.name for name, each in found.items()} == {"double": "double"}


def test_generate_enlarges_by_a_bundle_of_the_shelf(home, tmp_path):
    target = tmp_path / "made.png"
    words = ["generate", "red apple", "--seed", "7", "--steps", "2", "--device", "onnxruntime"]
    words += ["--upscaler", "double", "--incognito", "--to", str(target), "--json"]
    done = home.invoke(app, words, catch_exceptions=False)
    assert json.loads(done.stdout)["width"] == 128
    with Image.open(target) as image:
        assert image.size == (256, 256)


@pytest.mark.parametrize(
    ("words", "status", "match"),
    [
        (["--upscaler", "double", "--refiner", "double"], 6, "it is no refiner"),
        (["--upscaler", "triple"], 6, "there is no model 'triple'"),
        (["--upscaler", "pocket"], 6, "an upscaler is needed"),
        (["--refiner-switch", "2"], 2, "refiner_switch is 2.0"),
        (["--control", "double=FILE"], 6, "it is no ControlNet"),
        (["--control", "lines=FILE"], 6, "there is no model 'lines'"),
        (["--control", "lines=/nowhere/x.png"], 5, ""),
        (
            ["--control", "lines=FILE"] * 5 + ["--control", "lines=FILE"] * 4,
            2,
            "number of controls",
        ),
    ],
    ids=["refiner", "missing", "kind", "switch", "net", "no net", "no file", "many"],
)
def test_what_does_not_go_ends_with_its_status_and_leaves_nothing(
    home, file, tmp_path, words, status, match
):
    target = tmp_path / "made.png"
    given = [word.replace("FILE", str(file)) for word in words]
    done = home.invoke(app, ["generate", "x", *given, "--incognito", "--to", str(target)])
    assert exit_status(done.exception) == status
    assert match in str(done.exception)
    assert not target.exists()


# -- sealed ------------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def test_pictures_that_steered_are_sealed_with_each_result(base, file, vault):
    nets = {name: controlnet(base, name) for name in ("edges", "depth")}
    read = read_controls([f"edges={file},scale=0.5", f"depth={file},end=0.5"])
    made = base.request(prompt="red apple", seed=5, steps=2, count=2, controls=read.controls)
    studio = Studio(Pipeline(base, FakeBackend(), beside=nets), vault, read.inputs)
    sealed = [event for event in studio.run([made], lambda: False) if isinstance(event, Sealed)]
    assert len(sealed) == 2
    for event in sealed:
        record = vault.get(event.record_id)
        assert list(record.blobs) == ["picture", "thumbnail", "control-0", "control-1"]
        for place in range(2):
            with Image.open(io.BytesIO(vault.read(event.record_id, f"control-{place}"))) as image:
                assert np.array_equal(np.asarray(image), read.inputs.controls[place])
                assert image.info == {}
        assert record.metadata["beside"] == {"edges": "hash of edges", "depth": "hash of depth"}
        assert record.metadata["settings"]["controls"] == [
            {"model": "edges", "scale": 0.5, "start": 0.0, "end": 1.0},
            {"model": "depth", "scale": 1.0, "start": 0.0, "end": 0.5},
        ]


def test_a_picture_that_was_steered_is_made_again_from_its_record(base, file, vault):
    nets = {"edges": controlnet(base, "edges")}
    read = read_controls([f"edges={file},scale=0.5,start=0.1,end=0.9"])
    made = base.request(prompt="red apple", seed=5, steps=3, controls=read.controls)
    pipeline = Pipeline(base, FakeBackend(), beside=nets)
    events = Studio(pipeline, vault, read.inputs).run([made], lambda: False)
    (sealed,) = [event for event in events if isinstance(event, Sealed)]
    original = open_original(vault, sealed.record_id)
    assert original.recipe.request == made
    again = pipeline.generate(original.recipe.request, inputs=original.recipe.inputs)
    (picture,) = [event for event in again if isinstance(event, Picture)]
    assert compare(original.pixels, picture.pixels).equal
    assert differences(original.record.metadata, picture) == []
    moved = replace(picture, beside=(("edges", "another hash"),))
    (each,) = differences(original.record.metadata, moved)
    assert (each.what, each.then, each.now) == ("edges", "hash of edges", "another hash")


def test_a_failed_run_is_an_attempt_with_its_controls(base, file, vault):
    read = read_controls([f"edges={file}"])
    made = base.request(prompt="red apple", seed=5, steps=2, controls=read.controls)
    studio = Studio(Pipeline(base, FakeBackend()), vault, read.inputs)
    with pytest.raises(Exception, match="was not opened beside"):
        list(studio.run([made], lambda: False))
    (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["settings"]["controls"][0]["model"] == "edges"


def test_incognito_keeps_no_picture_that_steered(base, file):
    nets = {"edges": controlnet(base, "edges")}
    read = read_controls([f"edges={file}"])
    made = base.request(prompt="red apple", seed=5, steps=2, controls=read.controls)
    studio = Studio(Pipeline(base, FakeBackend(), beside=nets), None, read.inputs)
    (event,) = [each for each in studio.run([made], lambda: False) if isinstance(each, Made)]
    assert event.png.startswith(b"\x89PNG")


def test_each_request_s_bundles_are_named_with_their_hashes(base, tmp_path):
    (tmp_path / "mine").symlink_to(POCKET)
    plain, up, both = (
        base.request(prompt="red apple", seed=1, **more)
        for more in ({}, {"upscaler": "mine"}, {"upscaler": "mine", "refiner": "pocket"})
    )
    found = hashes_beside(Shelf(tmp_path, tmp_path / "cache"), [plain, up, both])
    assert found == [{}, {"mine": base.hash}, {"mine": base.hash, "pocket": base.hash}]
