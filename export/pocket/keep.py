"""Stages `keep` and `resume`: small checkpoints under version control, so that any clone goes on.

`kept/` holds the finished VAE and, until the denoiser is finished as well, its weights in fp16.
Whoever resumes from it gets the same weights again, rounded once; without it every stage begins at
its first step. A finished denoiser ships in the bundle, and only its losses are kept here.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.pocket import checkpoint
from export.pocket.autoencoder import load_autoencoder
from export.pocket.settings import Settings

__all__ = ["KEPT", "build", "resume"]

KEPT = Path(__file__).with_name("kept")
_STATE = "unet-state.safetensors"
_LOSSES = "unet-state.jsonl"
_POLISH = "polish-state.jsonl"
_TEXTS = ("vae-state.jsonl", "vae.json")  # the last says that all is there


def build(work: Path, kept: Path, say: Callable[[str], None]) -> None:
    """Write what is worth keeping of WORK into `kept`: VAE, weights of the denoiser, losses."""
    vae: Any = load_autoencoder(work / "vae")  # `to` is annotated for a device alone
    vae.to(torch.float16).save_pretrained(kept / "vae")
    checkpoint.forget_origin(kept / "vae" / "config.json")
    finished = (work / "pocket").is_dir()
    for name in (_LOSSES, *((_POLISH,) if finished else ()), *_TEXTS):
        shutil.copyfile(work / name, kept / name)
    if finished:
        (kept / _STATE).unlink(missing_ok=True)
        say("keep: the denoiser is finished: its losses")
        return
    arrays, header = checkpoint.load(work / _STATE)
    prefix = "parameter."
    weights = {n: a.astype(np.float16) for n, a in arrays.items() if n.startswith(prefix)}
    checkpoint.save(kept / _STATE, weights, header | {"weights_only": True})
    say(f"keep: the denoiser at step {header['step']}")


def resume(work: Path, kept: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Copy the kept checkpoint into WORK, unless WORK has come as far itself or plans otherwise."""
    if (work / "vae.json").exists() or not kept.exists():
        say("resume: nothing to do")
        return
    if not settings.agree_with(checkpoint.read_json(kept / "vae.json")["settings"]):
        say("resume: the kept checkpoint was made with other settings")
        return
    shutil.copytree(kept / "vae", work / "vae", dirs_exist_ok=True)
    begun = (_STATE, _LOSSES) if (kept / _STATE).exists() else ()
    for name in (*begun, *_TEXTS):
        shutil.copyfile(kept / name, work / name)
    say(f"resume: went back to the kept {'checkpoint' if begun else 'VAE'}")
