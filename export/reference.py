"""Rebuilds diffusers' pipeline from a bundle: the weights lie in its graphs under state-dict names.

So the shipped bundle is its own test data, and no checkpoint has to lie in the repository.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from onnx import numpy_helper
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from export.errors import GraphError

__all__ = ["each_weight", "graph_weights", "load_torch_pipeline"]

UNDOTTED = ("concept_embeds", "special_care_embeds")


def each_weight(model: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of one graph by name: its named initialisers, in fp32, one at a time."""
    for tensor in onnx.load(model, load_external_data=False).graph.initializer:
        # The tracer's own constants have no dots in their names, as two of these weights have.
        if "." in tensor.name or tensor.name in UNDOTTED:
            array = numpy_helper.to_array(tensor, base_dir=str(model.parent))
            yield tensor.name, torch.from_numpy(array.copy()).float()


def graph_weights(model: Path) -> dict[str, torch.Tensor]:
    """Give the weights of one graph all together."""
    return dict(each_weight(model))


def load_torch_pipeline(
    bundle: Path, *, scheduler: type = DPMSolverMultistepScheduler
) -> StableDiffusionPipeline:
    """Build the fp32 pipeline whose pictures the engine must equal; every key must fit.

    scheduler: the class to take; its numbers come from the bundle's scheduler_config.json.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = CLIPTextModel(CLIPTextConfig.from_dict(_config(bundle, "text_encoder") | F32))
        unet: Any = UNet2DConditionModel.from_config(_config(bundle, "unet"))
        vae: Any = AutoencoderKL.from_config(_config(bundle, "vae_decoder"))
        _fill(text, graph_weights(bundle / "text_encoder/model.onnx"))
        _fill(unet, graph_weights(bundle / "unet/model.onnx"))
        both = graph_weights(bundle / "vae_decoder/model.onnx")
        both |= graph_weights(bundle / "vae_encoder/model.onnx")
        _fill(vae, both)
        config = json.loads((bundle / "scheduler/scheduler_config.json").read_text())
        build: Any = StableDiffusionPipeline
        pipeline: StableDiffusionPipeline = build(
            vae=vae.eval(),
            text_encoder=text.eval(),
            tokenizer=CLIPTokenizer.from_pretrained(bundle / "tokenizer", local_files_only=True),
            unet=unet.eval(),
            scheduler=scheduler.from_config(config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


F32 = {"dtype": "float32"}


def _config(bundle: Path, part: str) -> dict[str, object]:
    return json.loads((bundle / part / "config.json").read_text())


def _fill(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    persistent = module.state_dict()
    missing, left = set(persistent) - set(weights), set(weights) - set(persistent)
    if missing or left:
        raise GraphError(
            f"graph and module differ: the graph lacks {sorted(missing)[:5]}, "
            f"the module does not know {sorted(left)[:5]}"
        )
    module.load_state_dict(dict(weights), strict=True)
