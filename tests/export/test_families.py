"""Each family's bundle draws what diffusers draws of the same checkpoint. Exports take a minute."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.architectures import TINY_XL, write_random_checkpoint
from export.source import open_checkpoint
from tests.export.originals import TINY_SD2, TINY_SDXL, write_single_file

SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 30.0
PROMPT, SEED, STEPS = "red apple", 7, 8
BACK_ENDS = ("openvino", "onnxruntime")

pytestmark = pytest.mark.slow


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def bundle_of(source, out, **given):
    export_checkpoint(
        Ingredients(source=source, **given),
        out,
        name=out.name,
        licence=None,
        progress=lambda *_: None,
    )
    return Bundle.open(out, hash_cache=None)


def draw(bundle, back_end, **given):
    wanted = {"sampler": "euler", "schedule": "leading", "steps": STEPS, "seed": SEED}
    made = bundle.request(**({"prompt": PROMPT} | wanted | given))
    events = Pipeline(bundle, choose(back_end, "fp32")).generate(made)
    return next(event.pixels for event in events if isinstance(event, Picture))


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    write_random_checkpoint(folder / "source", TINY_XL, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = StableDiffusionXLPipeline.from_pretrained(
            folder / "source",
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
        )
    assert isinstance(theirs.scheduler, EulerDiscreteScheduler)
    theirs.set_progress_bar_config(disable=True)
    return bundle_of(folder / "source", folder / "bundle"), theirs


@pytest.mark.parametrize(
    "given",
    [
        {},  # an empty negative prompt is all zeros
        {"negative_prompt": "blue"},
        {"guidance_scale": 1.0},
        {"width": 72, "height": 104},
    ],
    ids=str,
)
def test_xl_equals_diffusers(xl, given):
    bundle, theirs = xl
    wanted = {"guidance_scale": 4.0, "width": 64, "height": 64} | given
    noise = torch.Generator("cpu").manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = theirs(PROMPT, num_inference_steps=STEPS, generator=noise, **wanted)
    expected = np.asarray(made.images[0])
    assert expected.std() > 10.0
    for back_end in BACK_ENDS:
        assert psnr(draw(bundle, back_end, **wanted), expected) >= SAME
    assert psnr(draw(bundle, "openvino", **(wanted | {"prompt": "pear"})), expected) < MOVED


def test_xl_that_encodes_an_empty_negative_prompt_equals_diffusers(xl, tmp_path):
    bundle, theirs = xl
    shutil.copytree(bundle.path, tmp_path / "plain")
    (tmp_path / "plain" / "safelight.json").unlink()  # which vouches for the index as it was
    index = tmp_path / "plain" / "model_index.json"
    said = json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}
    index.write_text(json.dumps(said))
    encoding = Bundle.open(tmp_path / "plain", hash_cache=None)
    given = {"guidance_scale": 4.0, "width": 64, "height": 64}
    theirs.register_to_config(force_zeros_for_empty_prompt=False)
    try:
        noise = torch.Generator("cpu").manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = theirs(PROMPT, num_inference_steps=STEPS, generator=noise, **given)
    finally:
        theirs.register_to_config(force_zeros_for_empty_prompt=True)
    expected = np.asarray(made.images[0])
    picture = draw(encoding, "openvino", **given)
    assert psnr(picture, expected) >= SAME
    assert psnr(picture, draw(bundle, "openvino", **given)) < SAME


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_a_single_file_draws_what_its_folder_does(tmp_path, family):
    architecture = {"sd2": TINY_SD2, "sdxl": TINY_SDXL}[family]
    file = write_single_file(tmp_path / "one.safetensors", tmp_path / "folder", architecture)
    # The folder's own vocabulary is made up: it takes the file's, which is CLIP's.
    for name, content in open_checkpoint(file, prediction="epsilon").pieces.files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    one = bundle_of(file, tmp_path / "one", prediction="epsilon")
    two = bundle_of(tmp_path / "folder", tmp_path / "two")
    assert (one.manifest.family, one.manifest.source.kind) == (family, "safetensors")
    given = {"width": 64, "height": 64, "guidance_scale": 4.0}
    pictures = [draw(each, "openvino", **given) for each in (one, two)]
    assert pictures[0].std() > 10.0
    assert psnr(*pictures) >= SAME
    assert psnr(draw(one, "openvino", **(given | {"prompt": "pear"})), pictures[0]) < MOVED
