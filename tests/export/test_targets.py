"""Targets: what is derived computes what it should, is judged, and is found by the engine."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import safelight
from engine.backends.openvino import OpenVinoBackend
from engine.bundle import Bundle
from engine.derived import Shape, find, write
from engine.errors import RequestError
from engine.forms import key_for
from engine.manifest import TensorSpec
from engine.pipeline import Pipeline
from export.child import run_job
from export.errors import ExportError, ParityError
from export.targets import TARGETS, TENSORRT_FORMS, int8, openvino, target_of
from export.targets.deriving import derive, key_of
from export.targets.trajectories import CALIBRATION, HELD_OUT, Recorder, Replaced, draw, psnr
from safelight.cli import app
from safelight.exits import exit_status
from tests.engine.companion_bundle import with_companions
from tests.engine.tiny_graph import DEPTH, write_product

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
NO_NNCF = pytest.mark.skipif(find_spec("nncf") is None, reason="NNCF (the extra int8) is missing")


@pytest.fixture(scope="module")
def pocket() -> Bundle:
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> OpenVinoBackend:
    """Give fp32 with a cache of compiled networks, so that each is compiled once here."""
    return OpenVinoBackend("fp32", tmp_path_factory.mktemp("cache"), threads=1)


def silent(*_) -> None:
    """Take progress and say nothing."""


def components(forms: Path) -> dict[str, Path]:
    return {name: forms / name / "model.xml" for name in ("text_encoder", "unet", "vae_decoder")}


# -- openvino ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def free(pocket, tmp_path_factory) -> Path:
    """Give pocket's form for free sizes."""
    out = tmp_path_factory.mktemp("free")
    openvino.build(pocket, out, shapes=(), progress=silent)
    return out


def small_picture(bundle, backend, **more):
    request = bundle.request(prompt="a red apple", seed=5, steps=2, **more)
    return list(Pipeline(bundle, backend).generate(request))[-1].pixels


def test_a_picture_by_the_form_is_the_picture_by_onnx_bit_by_bit(pocket, exact, free):
    wanted = small_picture(pocket, exact, width=64, height=64)
    replaced = Replaced(inner=exact, files=components(free))
    got = small_picture(pocket, replaced, width=64, height=64)
    assert np.ptp(wanted) > 100  # a picture and no grey
    assert np.array_equal(got, wanted)


def test_fp16_weights_stay_fp16_on_the_disk_and_nothing_else_is_rounded(pocket, free):
    for name in pocket.manifest.components:
        stored = pocket.path / name / "model.onnx_data"
        written = free / name / "model.bin"
        # Shapes and small constants stand in the graph itself in ONNX: 20 KB and no more.
        assert stored.stat().st_size <= written.stat().st_size < stored.stat().st_size + 20_000
        text = (free / name / "model.xml").read_text()
        assert str(POCKET) not in text
        assert os.environ.get("HOME", "/root") not in text


def test_a_form_for_a_shape_has_no_free_size_and_the_others_are_as_asked(pocket, tmp_path):
    from engine.backends.openvino import runtime

    shapes = (Shape(192, 128), Shape(64, 64, 2))
    report = openvino.build(pocket, tmp_path, shapes=shapes, progress=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["192x128x1", "64x64x2"]
    core = runtime().Core()
    for folder, sample, latents, picture in (
        ("192x128x1", [2, 4, 16, 24], [1, 4, 16, 24], [1, 3, 128, 192]),
        ("64x64x2", [4, 4, 8, 8], [2, 4, 8, 8], [2, 3, 64, 64]),
    ):
        for name, expected in (
            ("unet", sample),
            ("vae_decoder", latents),
            ("vae_encoder", picture),
            ("text_encoder", [1, pocket.manifest.token_limit]),
        ):
            graph = core.read_model(tmp_path / folder / name / "model.xml")
            assert list(graph.inputs[0].shape) == expected
            assert not any(port.partial_shape.is_dynamic for port in graph.outputs)
    assert report["components"] == list(pocket.manifest.components)


def test_shapes_are_those_of_each_kind_of_network(pocket, tmp_path):
    shapes = openvino.component_shapes
    whole = with_companions(pocket, tmp_path / "whole").manifest
    size = Shape(128, 64)
    assert shapes(whole, "safety_checker", size) == {"clip_input": (1, 3, 32, 32)}
    assert shapes(whole, "tiny_vae_decoder", size) == {"latent_sample": (1, 4, 8, 16)}
    unet = whole.components["unet"]
    ports = dict(unet.inputs) | {
        "sample": TensorSpec(dtype="float32", shape=("batch", 9, "height", "width")),
        "timestep_cond": TensorSpec(dtype="float32", shape=("batch", 256)),
    }
    told = replace(whole, components={"unet": replace(unet, inputs=ports)})
    found = shapes(told, "unet", size)
    assert found["sample"] == (1, 9, 8, 16)  # told the guidance scale, it runs one half
    assert found["timestep_cond"] == (1, 256)
    assert found["encoder_hidden_states"][0] == 1


def test_a_second_graph_of_the_unet_has_no_form_of_its_own(pocket, tmp_path):
    unet = pocket.manifest.components["unet"]
    both = {"unet": unet, "unet_control": replace(unet, file="unet/model_control.onnx")}
    bundle = replace(pocket, manifest=replace(pocket.manifest, components=both))
    report = openvino.build(bundle, tmp_path, shapes=(), progress=silent)
    assert report["components"] == ["unet"]
    assert [path.name for path in tmp_path.iterdir()] == ["unet"]


# -- the frame ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["int8", "openvino"])
def test_engine_and_export_name_a_form_by_the_same_key(pocket, name):
    assert key_of(pocket, name, ()) == key_for(pocket.hash, name)


@pytest.mark.parametrize("name", [*TARGETS, *TENSORRT_FORMS])
def test_each_target_has_all_that_the_frame_asks_of_it(name):
    target = target_of(name)
    assert target.PRECISION
    assert all("pip install" in line for line in target.NEEDED.values())
    assert 0 <= target.BOUND < 200
    assert callable(target.device)
    assert callable(target.build)


def test_an_unknown_target_is_one_sentence_with_those_there_are():
    with pytest.raises(ExportError, match="unknown target 'openvini'") as caught:
        target_of("openvini")
    assert "openvino" in caught.value.hint


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"tensorrt"}))
def test_a_timing_cache_is_for_tensorrt_alone(pocket, tmp_path, name):
    options = {"cache": tmp_path, "shapes": (), "progress": silent}
    with pytest.raises((RequestError, ExportError)) as caught:
        derive(pocket, name, **options, timing_cache=tmp_path / "timings")
    assert "timing cache is for tensorrt" in str(caught.value)


def put_int8(cache, bundle, psnr):
    def fill(folder):
        (folder / "unet").mkdir()
        (folder / "unet/model.xml").write_text("<net/>")
        return {"psnr": psnr}

    return write(cache, key_for(bundle.hash, "int8"), fill)


def test_a_kept_form_is_judged_by_the_bound_or_by_the_loss_that_is_accepted(pocket, tmp_path):
    made = put_int8(tmp_path, pocket, 27.5)

    def again(accept_loss):
        return derive(
            pocket, "int8", cache=tmp_path, shapes=(), progress=silent, accept_loss=accept_loss
        )

    assert int8.BOUND > 27.5
    for accept_loss in (None, 28.0):
        with pytest.raises(ParityError, match=r"27\.5 dB") as caught:
            again(accept_loss)
        assert exit_status(caught.value) == 6
        assert "--accept-loss" in caught.value.hint
    assert again(27.5) == made
    assert again(20.0) == made


def test_a_loss_is_not_accepted_for_what_loses_nothing(pocket, tmp_path):
    with pytest.raises(RequestError, match="loses nothing"):
        derive(pocket, "openvino", cache=tmp_path, shapes=(), progress=silent, accept_loss=30.0)


@pytest.mark.skipif(find_spec("nncf") is not None, reason="NNCF is here")
def test_without_nncf_it_is_said_what_to_install_and_nothing_is_left(pocket, tmp_path):
    with pytest.raises(ExportError, match="'int8' needs nncf") as caught:
        derive(pocket, "int8", cache=tmp_path, shapes=(), progress=silent)
    assert caught.value.hint == "pip install 'safelight[int8]'"
    assert list(tmp_path.rglob("*")) == []


def test_an_error_of_the_engine_in_the_child_keeps_its_class_and_status(pocket, tmp_path):
    job = {
        "task": "derive",
        "target": "int8",
        "bundle": str(POCKET),
        "hash_cache": str(tmp_path / "hashes.json"),
        "identity": pocket.hash,
        "shapes": ["64x64x1"],
        "out": str(tmp_path),
    }
    with pytest.raises(RequestError, match="made for free sizes") as caught:
        run_job(job, silent)
    assert exit_status(caught.value) == 2
    with pytest.raises(ExportError, match="was changed meanwhile"):
        run_job(job | {"identity": "0" * 64}, silent)


def test_the_command_makes_shows_reuses_and_removes_a_form(tmp_path):
    def run(*words):
        done = CliRunner(env={"SAFELIGHT_HOME": str(tmp_path)}).invoke(app, words)
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout) if "--json" in words else done.stdout

    words = ("export", "pocket", "--target", "openvino", "--shape", "64x64", "--json")
    first = run(*words)
    written = Path(first["path"]) / "64x64x1/unet/model.bin"
    state = written.stat()
    assert run(*words) == first
    assert written.stat().st_ino == state.st_ino
    (target,) = run("models", "show", "pocket", "--json")["targets"]
    assert target == {key: value for key, value in first.items() if key != "name"}
    assert "target openvino: 64x64x1, CPU" in run("models", "show", "pocket")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pocket").symlink_to(POCKET)
    run("models", "rm", "pocket", "--yes")
    assert not written.exists()
    assert run("models", "show", "pocket", "--json")["targets"] == []


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("pocket", "--target", "openvini"), 2, "did you mean 'openvino'"),
        (("pocket", "--target", "openvino", "--shape", "65x64"), 2, "is no shape"),
        (("pocket", "--shape", "64x64"), 2, "--target other than onnx"),
        (("pocket", "--accept-loss", "20"), 2, "--target other than onnx"),
        (("pocket",), 2, "--to NAME"),
        (("pocket", "--target", "openvino", "--licence", "mit"), 2, "--to NAME"),
        (("nothing", "--target", "openvino"), 6, "no model 'nothing'"),
        (("pocket", "--target", "openvino", "--accept-loss", "9"), 2, "loses nothing"),
        (("pocket", "--target", "openvino", "--refit"), 2, "not with 'openvino'"),
        (("pocket", "--target", "cuda", "--timing-cache", "t"), 2, "--timing-cache go with"),
        (("checkpoint", "--to", "n", "--ep-context"), 2, "not with 'onnx'"),
        (("pocket", "--target", "tensorrt", "--refit", "--ep-context"), 2, "exclude each other"),
        (("pocket", "--target", "tensorrt", "--timing-cache", "no/t"), 2, "a folder that exists"),
    ],
)
def test_what_the_command_refuses_leaves_nothing_behind(tmp_path, words, status, says):
    done = CliRunner(env={"SAFELIGHT_HOME": str(tmp_path)}).invoke(app, ["export", *words])
    assert says in f"{done.exception} {getattr(done.exception, 'hint', '')}"
    assert exit_status(done.exception) == status
    assert not (tmp_path / "cache/derived").exists()


# -- int8 --------------------------------------------------------------------------------------


def test_a_recorder_keeps_what_the_unet_is_given_over_the_whole_trajectory(pocket, exact):
    recorder = Recorder(inner=exact, every=2)
    recorded = small_picture(pocket, recorder, width=64, height=64)
    assert np.array_equal(recorded, small_picture(pocket, exact, width=64, height=64))
    (only,) = recorder.kept["unet"]  # two steps of which one is kept: the first, at pure noise
    assert only["sample"].shape == (2, 4, 8, 8)
    assert only["timestep"] > 900
    assert np.abs(only["sample"].std() - 1) < 0.2


def test_pictures_are_compared_by_the_formula_of_psnr():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == 200.0
    assert psnr(black, black + np.uint8(255)) == pytest.approx(0.0)
    # One value of 48 off by 16: mean squared error 16/3; 10 log10(65025 * 3 / 16) dB
    spot = black.copy()
    spot[0, 0, 0] = 16
    assert psnr(spot, black) == pytest.approx(40.8609, abs=1e-4)


def test_what_judges_is_not_what_calibrates():
    assert not {prompt for prompt, _ in CALIBRATION} & {prompt for prompt, _ in HELD_OUT}
    assert not {seed for _, seed in CALIBRATION} & {seed for _, seed in HELD_OUT}


def test_draw_gives_every_seed_of_every_prompt(pocket, exact):
    done = []

    class Cheap:
        """Give pocket's requests fewer steps and smaller pictures."""

        def __getattr__(self, name):
            return getattr(pocket, name)

        def request(self, **given):
            return pocket.request(**given, steps=1, width=64, height=64)

    pictures = draw(Cheap(), exact, HELD_OUT[:2], 2, done.append)
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 4
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert done == [0.25, 0.5, 0.75, 1.0]


@NO_NNCF
@pytest.mark.slow
def test_nncf_tells_nobody(tmp_path):
    model = write_product(tmp_path / "unet" / "model.onnx", external=True)
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import socket, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "def refuse(*_): raise SystemExit('asked for the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from export.targets.int8 import quantise\n"
        f"x = np.ones((2, {DEPTH}), np.float32)\n"
        f"quantise(Path({str(model)!r}), Path({str(tmp_path / 'out/model.xml')!r}), [{{'x': x}}])\n"
        "loaded = [m for m, what in sys.modules.items() if what is not None]\n"
        "print([m for m in loaded if m.startswith('openvino_telemetry')])\n"
    )
    kept = ("PATH", "PYTHONPATH")  # no CI variable, which would silence it as well
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out/model.xml").exists()
    # openvino_telemetry's client id and consent would be in the home.
    assert not [path for path in home.rglob("*") if "intel" in str(path).casefold()]


@NO_NNCF
@pytest.mark.slow
def test_int8_of_pocket_is_close_smaller_refused_below_its_bound_and_used(pocket, tmp_path):
    def make(accept_loss):
        return derive(
            pocket, "int8", cache=tmp_path, shapes=(), progress=silent, accept_loss=accept_loss
        )

    with pytest.raises(ParityError, match="nothing was kept"):
        make(80.0)  # eight bits do not reach that
    assert list((tmp_path / "derived").iterdir()) == []
    form = make(None)
    assert find(tmp_path, key_for(pocket.hash, "int8")) == form
    report = form.report
    assert report["psnr"] >= int8.BOUND
    assert report["psnr_worst"] <= report["psnr"]
    assert report["pictures"] == 8
    assert report["calibration_runs"] == len(CALIBRATION) * 5
    whole = pocket.manifest.files["unet/model.onnx_data"].bytes
    assert form.files["unet/model.bin"].bytes < 0.75 * whole
    # The report is true of what generate draws: another prompt, at the report's own quality.
    request = pocket.request(prompt="a blue cup", seed=900)
    exact, quick = (
        list(Pipeline(pocket, OpenVinoBackend(precision, tmp_path)).generate(request))[-1]
        for precision in ("fp32", "int8")
    )
    assert quick.precision == "int8"
    # The spread of single pictures about the mean is some 4 dB on pocket.
    assert int8.BOUND - 5 < psnr(quick.pixels, exact.pixels) < 60


@pytest.mark.slow
def test_a_checkpoint_becomes_a_bundle_and_its_form_in_one_command(tmp_path, tiny_checkpoint):
    runner = CliRunner(env={"SAFELIGHT_HOME": str(tmp_path)})
    words = ("export", str(tiny_checkpoint), "--to", "tiny", "--target", "openvino", "--json")
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.exception
    made = json.loads(done.stdout)
    assert (made["name"], made["target"]) == ("tiny", "openvino")
    bundle = Bundle.open(tmp_path / "models" / "tiny", hash_cache=None)
    form = find(tmp_path / "cache", key_for(bundle.hash, "openvino"))
    assert form is not None
    assert str(form.folder) == made["path"]
    done = runner.invoke(app, ["models", "rm", "tiny", "--yes"])
    assert done.exit_code == 0, done.exception
    assert not form.folder.exists()
