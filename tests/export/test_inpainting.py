"""Inpainting unets and the refiner are recognised, gated and kept; the engine says why it does not
draw with them.
"""

import json

import pytest
import torch
from safetensors.numpy import load_file

from engine import Bundle, BundleError, FakeBackend, Pipeline
from export import Ingredients, SourceError, export_checkpoint
from export.architectures import write_random_checkpoint
from export.originals import load_original
from export.source import open_checkpoint
from export.weights import matched, read_weight
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
        Pipeline(bundle, FakeBackend())


def exported(source, out):
    return export_checkpoint(
        Ingredients(source=source),
        out,
        name="kind",
        licence=None,
        progress=lambda *_: None,
    )
