"""Inpainting unets and the refiner are recognised, gated and kept. Nine channels paint what
diffusers paints; alone they draw nothing, and the engine says why.
"""

import json
import warnings

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, choose
from engine.inputs import Inputs
from export import Ingredients, SourceError, export_checkpoint
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.originals import load_original
from export.parameters import matched, read_weight
from export.source import open_checkpoint
from tests.export.originals import (
    TINY_INPAINT,
    TINY_INPAINT_SD2,
    TINY_INPAINT_SDXL,
    TINY_REFINER,
    TINY_SDXL,
    write_single_file,
)

# family, pipeline class that diffusers loads it by
KINDS = {
    "inpaint 1": (TINY_INPAINT, "sd1", "StableDiffusionInpaintPipeline"),
    "inpaint 2": (TINY_INPAINT_SD2, "sd2", "StableDiffusionInpaintPipeline"),
    "inpaint xl": (TINY_INPAINT_SDXL, "sdxl", "StableDiffusionXLInpaintPipeline"),
    "refiner": (TINY_REFINER, "sdxl-refiner", "StableDiffusionXLImg2ImgPipeline"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """Give a single file, beside the folder of the same weights, its family and pipeline."""
    architecture, family, pipeline = KINDS[request.param]
    folder = tmp_path_factory.mktemp("kind")
    return write_single_file(folder / "m.safetensors", folder / "f", architecture), family, pipeline


def test_folder_and_file_are_recognised_alike(kind):
    file, family, pipeline = kind
    for source in (file, file.parent / "f"):
        checkpoint = open_checkpoint(source)  # no --prediction: 2.x for inpainting predicts eps
        assert checkpoint.family == family
        assert checkpoint.pieces.index["_class_name"] == pipeline
        assert checkpoint.sizes["unet_channels"] == (4 if family == "sdxl-refiner" else 9)
        assert checkpoint.sizes.get("time_ids", 0) == {"sdxl": 6, "sdxl-refiner": 5}.get(family, 0)
        assert checkpoint.training.prediction_type == "epsilon"


def test_the_file_s_unet_and_text_are_what_the_libraries_read(kind):
    file, family, _ = kind
    ours = open_checkpoint(file)
    theirs = open_checkpoint(file.parent / "f")
    text = "text_encoder_2" if family == "sdxl-refiner" else "text_encoder"
    for part in ("unet", text):
        wanted = dict(load_original(theirs, part).named_parameters())
        for name, parameter in load_original(ours, part).named_parameters():
            assert torch.equal(parameter, wanted[name]), name
        recipe = next(each for each in ours.recipe.components if each.folder == part)
        shapes = {name: tuple(parameter.shape) for name, parameter in wanted.items()}
        for name, tensor in matched(recipe, shapes, ours.tensors[part]).items():
            stored = torch.from_numpy(read_weight(tensor)).float()
            assert torch.equal(stored.reshape(shapes[name]), wanted[name]), name


def test_a_refiner_that_takes_six_numbers_does_not_fit(tmp_path):
    write_random_checkpoint(tmp_path / "f", TINY_REFINER, seed=1)
    config = tmp_path / "f/unet/config.json"
    more = {"projection_class_embeddings_input_dim": 128 + 6 * 256}
    config.write_text(json.dumps(json.loads(config.read_text()) | more))
    with pytest.raises(SourceError, match="do not fit"):
        open_checkpoint(tmp_path / "f")


def test_a_base_model_that_was_saved_to_change_pictures_is_a_base_model(tmp_path):
    write_random_checkpoint(tmp_path / "f", TINY_SDXL, seed=1)
    index = tmp_path / "f/model_index.json"
    saved = json.loads(index.read_text()) | {"_class_name": "StableDiffusionXLImg2ImgPipeline"}
    index.write_text(json.dumps(saved))
    assert open_checkpoint(tmp_path / "f").family == "sdxl"
    index.write_text(json.dumps(saved | {"text_encoder_2": [None, None]}))
    with pytest.raises(SourceError, match="text_encoder_2 is"):
        open_checkpoint(tmp_path / "f")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_it_passes_the_gate_and_draws_nothing_alone(tmp_path, name):
    architecture, family, pipeline = KINDS[name]
    file = write_single_file(tmp_path / "m.safetensors", tmp_path / "f", architecture)
    source = tmp_path / "f" if name == "inpaint xl" else file
    if source == file:
        manifest = exported(source, tmp_path / "bundle")
    else:  # the folder's vocabulary is made up: it takes the file's, which is CLIP's
        for side, content in open_checkpoint(file).pieces.files.items():
            (tmp_path / "f" / side).write_bytes(content)
        manifest = exported(source, tmp_path / "bundle")
    assert manifest.family == family
    inputs = manifest.components["unet"].inputs
    assert inputs["sample"].shape[1] == (4 if name == "refiner" else 9)
    if name == "refiner":
        assert inputs["time_ids"].shape == ("batch", 5)
        assert manifest.text_encoders == ("text_encoder_2",)
    subjects = {measure.subject for measure in manifest.parity.measures}
    assert {"unet", "trajectory", "picture"} <= subjects
    index = json.loads((tmp_path / "bundle/model_index.json").read_text())
    assert index["_class_name"] == pipeline
    weights = load_file(tmp_path / "f/unet/diffusion_pytorch_model.safetensors")
    assert weights["conv_in.weight"].shape[1] == inputs["sample"].shape[1]
    bundle = Bundle.open(tmp_path / "bundle", hash_cache=None)
    with pytest.raises(BundleError, match=r"refiner|inpainting"):
        Pipeline(bundle, FakeBackend()).generate(bundle.request(prompt="red", seed=1))


SEED, STEPS, SCALE = 11, 8, 4.0
SAME = 45.0  # dB; what fp32 leaves is 60 and more


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "pipeline"),
    [
        (TINY, diffusers.StableDiffusionInpaintPipeline),
        (TINY_XL, diffusers.StableDiffusionXLInpaintPipeline),
    ],
    ids=["1", "xl"],
)
def test_nine_channels_paint_what_diffusers_paints(tmp_path, architecture, pipeline):
    nine = dict(architecture) | {"unet": dict(architecture["unet"]) | {"in_channels": 9}}
    write_random_checkpoint(tmp_path / "source", nine, seed=3)
    exported(tmp_path / "source", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle", hash_cache=None)
    ours = Pipeline(bundle, choose("openvino", "fp32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations
        theirs = pipeline.from_pretrained(
            tmp_path / "source", torch_dtype=torch.float32, local_files_only=True
        )
    theirs.scheduler = diffusers.EulerDiscreteScheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    down, across = np.mgrid[0:64, 0:64]
    init = np.stack([4 * down, 4 * across, 255 - 4 * down], axis=-1).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 8:40] = 255
    painted = mask > 0

    def drawn(prompt, strength, shown):
        request = bundle.request(
            prompt=prompt,
            seed=SEED,
            steps=STEPS,
            sampler="euler",
            schedule=theirs.scheduler.config.timestep_spacing,
            guidance_scale=SCALE,
            width=64,
            height=64,
            strength=strength,
            mask_blur=0,
        )
        *_, picture = ours.generate(request, inputs=Inputs(init=init, mask=shown))
        assert isinstance(picture, Picture)
        return picture.pixels

    for strength in (0.7, 1.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = np.asarray(
                theirs(
                    "red apple",
                    image=Image.fromarray(init),
                    mask_image=Image.fromarray(mask),
                    width=64,
                    height=64,
                    strength=strength,
                    num_inference_steps=STEPS,
                    guidance_scale=SCALE,
                    generator=torch.Generator("cpu").manual_seed(SEED),
                ).images[0]
            )
        got = drawn("red apple", strength, mask)
        assert psnr(got[painted], expected[painted]) >= SAME
        assert np.array_equal(got[~painted], init[~painted])
        assert psnr(drawn("pear", strength, mask)[painted], expected[painted]) < SAME
    smaller = mask.copy()
    smaller[40:] = 0
    assert psnr(drawn("red apple", 1.0, smaller)[16:40, 8:40], expected[16:40, 8:40]) < SAME


def exported(source, out):
    return export_checkpoint(
        Ingredients(source=source),
        out,
        name="kind",
        licence=None,
        progress=lambda *_: None,
    )
