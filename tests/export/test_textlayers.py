"""Layers of text encoders: which outputs there are, and that they are what diffusers takes."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from engine.errors import BundleError
from engine.tokenizer import Tokenizer
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.graph import trace
from export.modules import parameter_shapes
from export.parameters import matched
from export.source import open_checkpoint
from export.textlayers import output_names
from export.weights import fill, save

PROMPT = "a red apple"
# Both compute in fp32, so what remains is the order of additions: 2e-6 was seen of numbers up to 4.
SAME = 1e-5


def deep(architecture, part, layers):
    return dict(architecture) | {part: dict(architecture[part]) | {"num_hidden_layers": layers}}


def text_graph(source, name, folder):
    checkpoint = open_checkpoint(source)
    part = next(each for each in checkpoint.recipe.components if each.name == name)
    config = checkpoint.configs[part.folder]
    model = trace(part, config, checkpoint.sizes)
    shapes = parameter_shapes(part, config)
    fill(model, matched(part, shapes, checkpoint.tensors[part.folder]))
    folder.mkdir()
    save(model, folder)
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in session.get_outputs()]
    length = config["max_position_embeddings"]
    tokenizer = Tokenizer(source / name.replace("text_encoder", "tokenizer"), limit=length)
    ids = {"input_ids": tokenizer.encode(PROMPT)}
    return dict(zip(names, session.run(names, ids), strict=True))


def theirs(kind, source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
        )


@pytest.mark.parametrize(
    ("module", "layers", "names"),
    [
        ("text_encoder", 1, ["last_hidden_state"]),
        ("text_encoder", 2, ["last_hidden_state", "clip_skip_2"]),
        ("text_encoder", 12, ["last_hidden_state", "clip_skip_2", "clip_skip_3", "clip_skip_4"]),
        ("text_encoder_layers", 1, ["last_hidden_state", "hidden_states.0", "hidden_states.1"]),
        (
            "text_encoder_projected",
            1,
            ["text_embeds", "last_hidden_state", "hidden_states.0", "hidden_states.1"],
        ),
    ],
)
def test_outputs_follow_from_the_number_of_layers(module, layers, names):
    assert list(output_names(module, {"num_hidden_layers": layers})) == names


@pytest.mark.parametrize("layers", [0, 61, "2", None])
def test_a_configuration_without_sensible_layers_is_refused(layers):
    with pytest.raises(BundleError, match="num_hidden_layers"):
        output_names("text_encoder", {"num_hidden_layers": layers})


@pytest.mark.slow
def test_clip_skip_is_what_diffusers_takes(tmp_path):
    source = tmp_path / "source"
    write_random_checkpoint(source, deep(TINY, "text_encoder", 3), seed=3)
    found = text_graph(source, "text_encoder", tmp_path / "graph")
    assert list(found) == ["last_hidden_state", "clip_skip_2", "clip_skip_3"]
    pipeline = theirs(StableDiffusionPipeline, source)
    # diffusers 0.42 asks for the norm where transformers 4 had it. An entry, since a module that
    # is its own child cannot be walked.
    vars(pipeline.text_encoder)["text_model"] = pipeline.text_encoder
    for name, clip_skip in (("last_hidden_state", None), ("clip_skip_2", 1), ("clip_skip_3", 2)):
        with torch.inference_mode():
            wanted, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, False, clip_skip=clip_skip)
        assert np.abs(found[name] - wanted.numpy()).max() < SAME
    assert np.abs(found["clip_skip_2"] - found["clip_skip_3"]).max() > 0.1


@pytest.mark.slow
def test_every_layer_of_xl_is_what_diffusers_takes(tmp_path):
    source = tmp_path / "source"
    write_random_checkpoint(source, deep(TINY_XL, "text_encoder", 3), seed=3)
    pipeline = theirs(StableDiffusionXLPipeline, source)
    first = text_graph(source, "text_encoder", tmp_path / "first")
    second = text_graph(source, "text_encoder_2", tmp_path / "second")
    assert list(second)[:2] == ["text_embeds", "last_hidden_state"]
    # optimum and diffusers look at the first output alone for the pooled text.
    assert first["last_hidden_state"].ndim == 3
    with torch.inference_mode():
        wanted, _, pooled, _ = pipeline.encode_prompt(
            PROMPT, device="cpu", do_classifier_free_guidance=False
        )
    layers = [max(name for name in each if name.startswith("hidden")) for each in (first, second)]
    numbers = [int(name.rpartition(".")[2]) - 1 for name in layers]
    both = [
        each[f"hidden_states.{number}"]
        for each, number in zip((first, second), numbers, strict=True)
    ]
    assert np.abs(np.concatenate(both, axis=-1) - wanted.numpy()).max() < SAME
    assert np.abs(second["text_embeds"] - pooled.numpy()).max() < SAME
    # The last one is raw, as transformers gives it: the final norm makes last_hidden_state of it.
    with torch.inference_mode():
        normed = pipeline.text_encoder.final_layer_norm(torch.from_numpy(first["hidden_states.3"]))
    assert np.abs(normed.numpy() - first["last_hidden_state"]).max() < SAME
