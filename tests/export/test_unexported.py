"""A checkpoint that was never exported, drawn with by torch: its pictures are diffusers'.

That they are its bundle's as well is shown where a bundle is made: tests/export/test_build.py.
"""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.numpy import load_file, save_file

import safelight
from engine import BundleError, DeviceError, Picture, Pipeline, choose
from engine.backends.torch import TorchBackend
from export import MissingError, SourceError, Unexported
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.source import open_checkpoint
from export.unexported import UNPROVEN
from tests.export.companion_files import tiny_checker, write_checker
from tests.export.controlnets import CONTROL_CONFIGS, write_controlnet
from tests.export.originals import TINY_SD1, TINY_SD2, write_single_file

SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 30.0  # dB; beneath it two pictures are plainly two
PROMPT, SEED, STEPS, GUIDANCE = "red apple", 7, 4, 4.0
FAMILIES = {"sd1": TINY, "sd2": TINY_SD2, "sdxl": TINY_XL}


def psnr(a, b):
    """Compare two arrays, in dB of the second one's range; 200 for equal ones."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(float(np.ptp(b)) ** 2 / error)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch from waiting for threads that other tests keep busy: these networks are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opened(source, tmp_path):
    return Unexported.open(source, cache=tmp_path / "cache", hash_cache=None)


def picture_of(bundle, choice, **given):
    wanted = {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "guidance_scale": GUIDANCE}
    spaced = {"sampler": "euler", "schedule": "leading", "width": 64, "height": 64}
    events = Pipeline(bundle, choice).generate(bundle.request(**(wanted | spaced | given)))
    (picture,) = [event for event in events if isinstance(event, Picture)]
    return picture


def draw(model, precision="fp32", **given):
    return picture_of(model.bundle, model.on(choose("torch:CPU", precision)), **given)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Give a checkpoint of each family, opened by us and by diffusers."""
    folder = tmp_path_factory.mktemp(request.param)
    write_random_checkpoint(folder / "source", FAMILIES[request.param], seed=3)
    kind = StableDiffusionXLPipeline if request.param == "sdxl" else StableDiffusionPipeline
    more = {} if request.param == "sdxl" else {"safety_checker": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = kind.from_pretrained(
            folder / "source",
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            **more,
        )
        theirs.scheduler = EulerDiscreteScheduler.from_config(
            theirs.scheduler.config, timestep_spacing="leading"
        )
    theirs.set_progress_bar_config(disable=True)
    model = opened(folder / "source", folder)
    assert model.bundle.manifest.family == request.param
    return model, theirs


@pytest.mark.parametrize(
    "given",
    [{}, {"negative_prompt": "blue", "width": 72, "height": 104}],
    ids=["plain", "negative and not square"],
)
def test_its_picture_is_diffusers(family, given):
    model, theirs = family
    wanted = {"guidance_scale": GUIDANCE, "width": 64, "height": 64} | given
    noise = torch.Generator("cpu").manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = theirs(PROMPT, num_inference_steps=STEPS, generator=noise, **wanted)
    expected = np.asarray(made.images[0])
    assert expected.std() > 10.0  # there is something in the picture
    assert psnr(draw(model, **given).pixels, expected) >= SAME
    assert psnr(draw(model, **given, prompt="blue apple").pixels, expected) < MOVED


def test_a_picture_says_what_drew_it(tiny_checkpoint, tmp_path):
    model = opened(tiny_checkpoint, tmp_path)
    picture = draw(model, steps=1)
    assert picture.reason == f"torch, the processor (CPU), fp32: asked for; {UNPROVEN}"
    assert (picture.backend, picture.device, picture.precision) == ("torch", "CPU", "fp32")
    assert (picture.model, picture.model_hash) == ("tiny-source", model.bundle.hash)
    assert [name for name, _ in picture.libraries] == [
        "torch",
        "diffusers",
        "transformers",
        "numpy",
    ]
    assert not model.bundle.verified
    assert model.bundle.manifest.parity.measures == ()


def test_its_hash_is_of_its_weights(tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "tiny source")
    assert opened(other, tmp_path).bundle.hash == opened(tiny_checkpoint, tmp_path).bundle.hash
    file = other / "unet/diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert opened(other, tmp_path).bundle.hash != opened(tiny_checkpoint, tmp_path).bundle.hash


def test_no_weight_is_copied_and_what_is_spoilt_is_written_again(tiny_checkpoint, tmp_path):
    model = opened(tiny_checkpoint, tmp_path)
    draw(model, steps=1)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    whole = sum(path.stat().st_size for path in tiny_checkpoint.rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) < whole / 10
    assert not [path for path in files if path.suffix not in {".json", ".md", ".txt"}]
    assert (tmp_path / "cache/checkpoints").stat().st_mode & 0o777 == 0o700
    vocabulary = model.bundle.path / "tokenizer/vocab.json"
    before = vocabulary.read_bytes()
    vocabulary.write_bytes(b"{}")
    opened(tiny_checkpoint, tmp_path)
    assert vocabulary.read_bytes() == before


SHAPES = {
    "text_encoder": {"input_ids": (1, 20)},
    "unet": {"sample": (2, 4, 8, 8), "timestep": (), "encoder_hidden_states": (2, 20, 32)},
    "vae_decoder": {"latent_sample": (1, 4, 8, 8)},
    "vae_encoder": {"sample": (1, 3, 64, 64)},
}


@pytest.mark.parametrize("component", SHAPES)
def test_in_bf16_each_network_is_near_and_fp32_is_at_hand(tiny_checkpoint, tmp_path, component):
    model, numbers = opened(tiny_checkpoint, tmp_path), np.random.default_rng(3)
    shapes = SHAPES[component]
    given = {
        name: numbers.integers(0, 300, shape)
        if name == "input_ids"
        else np.array(801, np.float32)  # bf16 has steps of 4 there
        if shape == ()
        else numbers.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    narrow = model.on(choose("torch:CPU", "bf16")).backend
    exact = narrow.exact()
    assert (narrow.precision, exact.precision) == ("bf16", "fp32")
    assert exact.exact() is exact
    path = model.bundle.model(component)
    wanted, got = (each.load(path, shapes).run_all(given) for each in (exact, narrow))
    assert list(got) == model.bundle.output_names(component)
    for name, each in wanted.items():
        assert got[name].dtype == np.float32
        # bf16 keeps 8 bits, 48 dB a rounding. The unet's random attention is sharp: 38 to 47 were
        # seen, and 24 to 33 with the timestep in bf16.
        assert 36 <= psnr(got[name], each) <= 70


def test_a_single_file_draws_what_its_folder_does(tmp_path):
    file = write_single_file(tmp_path / "one.safetensors", tmp_path / "folder", TINY_SD1)
    # The folder's own vocabulary is made up: it takes the file's, which is CLIP's.
    for name, content in open_checkpoint(file).pieces.files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    one, two = (draw(opened(each, tmp_path)) for each in (file, tmp_path / "folder"))
    assert one.pixels.std() > 10.0
    assert one.model_hash != two.model_hash
    assert psnr(one.pixels, two.pixels) >= SAME
    assert psnr(draw(opened(file, tmp_path), prompt="blue apple").pixels, one.pixels) < MOVED


def test_its_safety_checker_comes_along(tiny_checkpoint, tmp_path):
    pictures = []
    for threshold in (1.0, -1.0):  # a cosine is below the one and above the other
        source = shutil.copytree(tiny_checkpoint, tmp_path / f"source{threshold}")
        checker = tiny_checker(5)
        checker.concept_embeds_weights.data = torch.full((17,), threshold)
        write_checker(source, checker)
        pictures.append(draw(opened(source, tmp_path), steps=1))
    assert [picture.flagged for picture in pictures] == [False, True]
    assert pictures[0].pixels.any()
    assert not pictures[1].pixels.any()


def test_a_bundle_beside_it_is_read_from_its_graphs(tiny_checkpoint, tmp_path):
    backend = opened(tiny_checkpoint, tmp_path).on(choose("torch:CPU")).backend
    shapes = SHAPES["vae_decoder"]
    given = {"latent_sample": np.ones(shapes["latent_sample"], np.float32)}
    path = Path(safelight.__file__).with_name("models") / "pocket/vae_decoder/model.onnx"
    got, wanted = (each.load(path, shapes).run(given) for each in (backend, TorchBackend("fp32")))
    assert np.array_equal(got, wanted)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "openvino", "onnxruntime"])
def test_another_device_is_refused_with_what_to_do(tiny_checkpoint, tmp_path, device):
    model = opened(tiny_checkpoint, tmp_path)
    with pytest.raises(DeviceError, match="'tiny source' is a checkpoint that was never") as caught:
        model.on(choose(device))
    assert "--device torch" in caught.value.hint
    assert f"`safelight export '{tiny_checkpoint}' --to NAME`" in caught.value.hint


def test_a_weight_that_is_missing_or_too_many_is_named(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    file = source / "unet/diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    bent = {name: value for name, value in whole.items() if name != "conv_in.bias"}
    save_file(bent, file)
    with pytest.raises(BundleError, match=r"unet lacks the weight 'conv_in\.bias'"):
        draw(opened(source, tmp_path), steps=1)
    save_file(whole | {"conv_in.more": whole["conv_in.bias"]}, file)
    with pytest.raises(BundleError, match=r"unet has the weight 'conv_in\.more'"):
        draw(opened(source, tmp_path), steps=1)
    save_file(whole | {"conv_in.bias": whole["conv_in.bias"][:-1]}, file)
    with pytest.raises(BundleError, match=r"'conv_in\.bias' has shape \[15\]"):
        draw(opened(source, tmp_path), steps=1)


@pytest.mark.parametrize("change", ["cut short", "gone"])
def test_weights_that_changed_meanwhile_are_told(tiny_checkpoint, tmp_path, change):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    model = opened(source, tmp_path)
    file = source / "unet/diffusion_pytorch_model.safetensors"
    file.unlink() if change == "gone" else file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BundleError, match="the weights of unet cannot be read"):
        draw(model, steps=1)


def test_pickles_and_halves_are_refused(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    file = source / "unet/diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(SourceError, match="is a pickle: loading it runs whatever code"):
        opened(source, tmp_path)
    file.with_suffix(".bin").unlink()
    with pytest.raises(MissingError, match=r"unet/ has no \.safetensors file"):
        opened(source, tmp_path)
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match=r"'old\.ckpt' is a pickle"):
        opened(tmp_path / "old.ckpt", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_configuration_that_makes_no_sense_is_refused(tiny_checkpoint, tmp_path):
    source = shutil.copytree(tiny_checkpoint, tmp_path / "source")
    config = source / "unet/config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"down_block_types": ["NoSuchBlock", "DownBlock2D"]}))
    with pytest.raises(BundleError, match="the configuration of unet is not acceptable"):
        draw(opened(source, tmp_path), steps=1)


def test_a_controlnet_draws_nothing_by_itself(tmp_path):
    folder = write_controlnet(tmp_path / "canny", CONTROL_CONFIGS["sd1"])
    with pytest.raises(SourceError, match="'canny' is a ControlNet: it draws no picture alone"):
        opened(folder, tmp_path)


# -- what it takes -------------------------------------------------------------------------------


def run(program, *words):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_that_an_export_needs_is_imported(tiny_checkpoint, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "for name in ('onnx', 'onnx_ir', 'onnxruntime', 'onnxscript', 'openvino', 'psutil'):\n"
        "    sys.modules[name] = None\n"
        "from engine import Pipeline, choose\n"
        "from export import Unexported\n"
        "model = Unexported.open(Path(sys.argv[1]), cache=Path(sys.argv[2]))\n"
        "assert 'torch' not in sys.modules, 'opening takes no torch'\n"
        "request = model.bundle.request(prompt='', seed=1, steps=1)\n"
        "*_, picture = Pipeline(model.bundle, model.on(choose('torch:CPU'))).generate(request)\n"
        "print(picture.pixels.shape)\n"
    )
    done = run(program, tiny_checkpoint, tmp_path / "cache")
    assert done.stdout == "(64, 64, 3)\n", done.stderr


def test_a_library_that_is_missing_is_named_with_what_installs_it(tiny_checkpoint, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['diffusers'] = None\n"
        "from engine import DeviceError\n"
        "from export import Unexported\n"
        "try:\n"
        "    Unexported.open(Path(sys.argv[1]), cache=Path(sys.argv[2]))\n"
        "except DeviceError as error:\n"
        "    print(error, error.hint, sep='; ')\n"
    )
    done = run(program, tiny_checkpoint, tmp_path / "cache")
    wanted = "a checkpoint that was never exported needs diffusers; pip install 'safelight[export]'"
    assert done.stdout == f"{wanted}\n", done.stderr
