"""Draws pictures with a diffusers folder's own parts: DPM++ 2M, guidance, one seed a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModel

from export.errors import ExportError
from export.pocket.captions import CONTEXT, encode

__all__ = ["GUIDANCE", "STEPS", "Painter", "to_pictures"]

STEPS = 20
GUIDANCE = 3.5
_BATCH = 16


def to_pictures(signal: Tensor) -> np.ndarray:
    """Turn f[B, 3, H, W] in -1..1 into uint8[B, H, W, 3]."""
    levels = ((signal.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


@dataclass(frozen=True, kw_only=True)
class Painter:
    """The parts of a Stable Diffusion folder, in one precision, on the CPU."""

    tokenizer: Tokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    folder: Path

    @classmethod
    def open(cls, folder: Path, *, precision: torch.dtype = torch.float32) -> "Painter":
        """Open a folder; its weights are turned into the precision that is computed in."""
        if not (folder / "model_index.json").exists():
            raise ExportError(f"{folder.name} is no diffusers folder", hint="run finish first")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        end = tokenizer.token_to_id("<|endoftext|>")
        tokenizer.enable_truncation(CONTEXT)
        tokenizer.enable_padding(length=CONTEXT, pad_id=end, pad_token="<|endoftext|>")  # noqa: S106
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=precision)
        return cls(
            tokenizer=tokenizer,
            text_encoder=cast("CLIPTextModel", text).eval(),
            unet=UNet2DConditionModel.from_pretrained(
                folder / "unet", torch_dtype=precision, low_cpu_mem_usage=False
            ).eval(),
            vae=AutoencoderKL.from_pretrained(
                folder / "vae", torch_dtype=precision, low_cpu_mem_usage=False
            ).eval(),
            folder=folder,
        )

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts: f[n, 32, C]."""
        ids = torch.from_numpy(encode(self.tokenizer, prompts))
        return cast("Any", self.text_encoder)(input_ids=ids).last_hidden_state

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Turn latents into pictures uint8[B, H, W, 3]."""
        scale = self.vae.config["scaling_factor"]
        return to_pictures(cast("Any", self.vae.decode(latents / scale)).sample)

    @torch.no_grad()
    def reconstruct(self, signal: Tensor) -> np.ndarray:
        """Send pictures f[B, 3, H, W] in -1..1 through encoder and decoder: uint8[B, H, W, 3]."""
        encoded = cast("Any", self.vae.encode(signal)).latent_dist.mean
        return to_pictures(cast("Any", self.vae.decode(encoded)).sample)

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float = GUIDANCE,
        say: Callable[[str], None] | None = None,
    ) -> np.ndarray:
        """Draw one picture a prompt, each from its own seed: uint8[n, H, W, 3]."""
        done = []
        for start in range(0, len(prompts), _BATCH):
            part = slice(start, start + _BATCH)
            done.append(self._draw_batch(list(prompts[part]), list(seeds[part]), guidance))
            if say is not None and start % (_BATCH * 4) == 0:
                say(f"drew {start + len(done[-1])} of {len(prompts)}")
        return np.concatenate(done)

    @torch.no_grad()
    def _draw_batch(self, prompts: list[str], seeds: list[int], guidance: float) -> np.ndarray:
        scheduler = cast(
            "Any", DPMSolverMultistepScheduler.from_pretrained(self.folder / "scheduler")
        )
        scheduler.set_timesteps(STEPS)
        side = int(self.unet.config["sample_size"])
        x = torch.cat(
            [
                torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(s))
                for s in seeds
            ]
        )  # (B, 4, H/8, W/8)
        embeds = torch.cat([self.embed([""] * len(prompts)), self.embed(prompts)])  # (2B, 32, C)
        for timestep in scheduler.timesteps:
            x2 = torch.cat([x, x]).to(embeds.dtype)
            v = cast("Any", self.unet)(x2, timestep, embeds).sample.float()
            without, with_prompt = v.chunk(2)
            guided = without + guidance * (with_prompt - without)
            x = scheduler.step(guided, timestep, x).prev_sample
        return self.decode(x.to(embeds.dtype))
