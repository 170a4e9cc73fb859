"""A folder of Stable Diffusion XL as optimum exports it draws what diffusers draws, unverified.

Names, order and types of inputs and outputs are those of `optimum.exporters.onnx.model_configs`:
the text encoders give every layer, and the tokens are int32, the timestep int64.
"""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from engine import Bundle, Picture, Pipeline, choose
from export.architectures import TINY_XL, write_random_checkpoint
from export.graph import trace
from export.modules import parameter_shapes
from export.parameters import matched
from export.recipes import SDXL
from export.source import open_checkpoint
from export.weights import fill, save

SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 30.0
PROMPT, SEED, STEPS = "red apple", 7, 6

pytestmark = pytest.mark.slow


class Layers(torch.nn.Module):
    """A text encoder with all its layers, the pooled text first or second."""

    def __init__(self, net, *, projected):
        super().__init__()
        self.net = net
        self.projected = projected

    def forward(self, input_ids):
        out = self.net(input_ids, output_hidden_states=True)
        if self.projected:
            return (out.text_embeds, out.last_hidden_state, *out.hidden_states)
        return (out.last_hidden_state, out.pooler_output, *out.hidden_states)


def write_text_encoder(net, path, *, projected):
    names = ["text_embeds", "last_hidden_state"]
    if not projected:
        names = ["last_hidden_state", "pooler_output"]
    names += [f"hidden_states.{number}" for number in range(net.config.num_hidden_layers + 1)]
    ids = torch.zeros((2, net.config.max_position_embeddings), dtype=torch.int32)
    path.parent.mkdir()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Layers(net, projected=projected).eval(),
            (ids,),
            path,
            input_names=["input_ids"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    net.config.to_json_file(path.with_name("config.json"))


def write_part(checkpoint, name, folder):
    part = next(each for each in SDXL.components if each.name == name)
    whole = [
        replace(port, dtype="int64") if port.name == "timestep" else port for port in part.inputs
    ]
    part = replace(part, inputs=tuple(whole))
    config = checkpoint.configs[part.folder]
    model = trace(part, config, checkpoint.sizes)
    shapes = parameter_shapes(part, config)
    fill(model, matched(part, shapes, checkpoint.tensors[part.folder]))
    (folder / name).mkdir()
    save(model, folder / name)
    source = checkpoint.pieces.places[part.folder] / "config.json"
    shutil.copy(source, folder / name / "config.json")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    source, plain = folder / "source", folder / "plain"
    write_random_checkpoint(source, TINY_XL, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = StableDiffusionXLPipeline.from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    theirs.set_progress_bar_config(disable=True)
    plain.mkdir()
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(source / name, plain / name)
    shutil.copy(source / "model_index.json", plain)
    write_text_encoder(theirs.text_encoder, plain / "text_encoder/model.onnx", projected=False)
    write_text_encoder(theirs.text_encoder_2, plain / "text_encoder_2/model.onnx", projected=True)
    checkpoint = open_checkpoint(source)
    for name in ("unet", "vae_decoder"):
        write_part(checkpoint, name, plain)
    return Bundle.open(plain, hash_cache=None), theirs


def draw(bundle, back_end, **given):
    wanted = {"sampler": "euler", "schedule": "leading", "steps": STEPS, "seed": SEED}
    made = bundle.request(**({"prompt": PROMPT} | wanted | given))
    events = Pipeline(bundle, choose(back_end, "fp32")).generate(made)
    return next(event.pixels for event in events if isinstance(event, Picture))


def test_it_is_known_and_unverified(both):
    bundle, _ = both
    manifest = bundle.manifest
    assert not bundle.verified
    assert (manifest.family, manifest.scaling_factor) == ("sdxl", 0.13025)
    assert (manifest.embed_dim, manifest.pooled_dim) == (80, 40)
    assert manifest.components["text_encoder"].inputs["input_ids"].dtype == "int32"
    assert manifest.components["unet"].inputs["timestep"].dtype == "int64"


@pytest.mark.parametrize("back_end", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("negative", ["", "blue"])
def test_it_draws_what_diffusers_does(both, back_end, negative):
    bundle, theirs = both
    given = {"guidance_scale": 4.0, "width": 64, "height": 72}
    noise = torch.Generator("cpu").manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = theirs(
            PROMPT,
            negative_prompt=negative or None,
            num_inference_steps=STEPS,
            generator=noise,
            **given,
        )
    expected = np.asarray(made.images[0])
    assert expected.std() > 10.0
    assert psnr(draw(bundle, back_end, negative_prompt=negative, **given), expected) >= SAME
    assert psnr(draw(bundle, back_end, prompt="pear", **given), expected) < MOVED


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)
