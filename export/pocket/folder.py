"""Writes networks as a diffusers StableDiffusionPipeline folder, without paths of this machine."""

import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import diffusers
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import nn

from export.pocket import checkpoint
from export.pocket.autoencoder import load_autoencoder
from export.pocket.denoiser import Network

__all__ = ["networks", "save_folder"]

_PARTS = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
}


def save_folder(parts: Mapping[str, nn.Module], folder: Path, dtype: torch.dtype) -> None:
    """Write a StableDiffusionPipeline folder in one precision, without paths of this machine."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, module in parts.items():
        module.to(dtype).save_pretrained(folder / name)  # pyright: ignore[reportCallIssue]  mixin
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        algorithm_type="dpmsolver++",
        solver_order=2,
        steps_offset=1,
    )
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer = resources.files("export.pocket").joinpath("tokenizer")
    (folder / "tokenizer").mkdir()
    for file in tokenizer.iterdir():
        (folder / "tokenizer" / file.name).write_bytes(file.read_bytes())
    index: dict[str, object] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
    }
    checkpoint.write_json(folder / "model_index.json", index | _PARTS)
    for path in folder.glob("*/*config.json"):
        checkpoint.forget_origin(path)


def networks(trained: nn.Module, work: Path) -> dict[str, nn.Module]:
    """Name the parts of a model: the trained ones and WORK's VAE."""
    if not isinstance(trained, Network):
        raise TypeError(type(trained))
    return {
        "text_encoder": trained.text_encoder,
        "unet": trained.unet,
        "vae": load_autoencoder(work / "vae"),
    }
