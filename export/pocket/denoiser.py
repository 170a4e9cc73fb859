"""Stage `unet`: trains UNet and text encoder together on latents and captions.

v-prediction (Salimans & Ho 2022) on Stable Diffusion's scaled-linear schedule, plain mean squared
error, timesteps stratified over a batch so that each step sees all noise levels evenly.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from export.pocket.captions import CONTEXT, Captioner, encode, open_tokenizer
from export.pocket.colours import BACKGROUNDS
from export.pocket.latents import LatentSet, open_latents
from export.pocket.pictures import Shelf, open_shelf
from export.pocket.settings import Settings
from export.pocket.training import Course, Trainer, cosine

__all__ = ["Lessons", "Network", "alpha_bars", "build", "new_network", "open_trainer"]

TRAIN_STEPS = 1000
_BETAS = (0.00085, 0.012)  # scaled_linear: the roots are spaced evenly


class Network(nn.Module):
    """UNet and text encoder as one module: f[B, 4, h, w], i64[B], i64[B, L] -> v f[B, 4, h, w]."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, x: Tensor, timesteps: Tensor, token_ids: Tensor) -> Tensor:
        """Predict v."""
        embeds = cast("Any", self.text_encoder)(input_ids=token_ids).last_hidden_state
        return cast("Any", self.unet)(x, timesteps, embeds).sample


def new_network(settings: Settings) -> Network:
    """Build both networks with fresh weights."""
    plan = settings.denoiser
    torch.manual_seed(settings.seed + 1)
    kind: Any = UNet2DConditionModel  # its annotations say tuples of one
    unet = kind(
        sample_size=settings.size // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=plan.channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=plan.text_width,
        attention_head_dim=plan.heads,
        norm_num_groups=plan.groups,
    )
    unet.set_attn_processor(AttnProcessor())  # SDPA's backward pass is slow on the CPU
    tokenizer = open_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    described: Any = CLIPTextConfig
    config = described(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=plan.text_width,
        intermediate_size=4 * plan.text_width,
        projection_dim=plan.text_width,
        num_hidden_layers=plan.text_layers,
        num_attention_heads=plan.text_heads,
        max_position_embeddings=CONTEXT,
        hidden_act="gelu",
        bos_token_id=tokenizer.token_to_id("<|startoftext|>"),
        eos_token_id=end,
        pad_token_id=end,
        attn_implementation="eager",
    )
    return Network(unet, CLIPTextModel(config))


def alpha_bars() -> Tensor:
    """Give the schedule's share of signal, f32[1000]."""
    low, high = (beta**0.5 for beta in _BETAS)
    betas = torch.linspace(low, high, TRAIN_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


class Lessons:
    """Draws batches and computes losses; everything follows from seed and step."""

    def __init__(
        self,
        network: nn.Module,
        shelf: Shelf,
        latents: LatentSet,
        settings: Settings,
        repeated: Mapping[str, int] | None = None,
    ) -> None:
        """Take the network and its material. `repeated`: concept -> times as often as others."""
        self._network, self._shelf, self._set = network, shelf, latents
        self._settings, self._plan = settings, settings.denoiser
        self._captioner = Captioner(shelf.vocabulary)
        self._tokenizer = open_tokenizer()
        self._alpha_bars = alpha_bars()
        self._originals = self._pool("concept", repeated or {})
        self._recoloured = self._pool("recoloured", repeated or {}) or self._originals
        rows = {*self._originals, *self._recoloured}
        self._white = {row: latents.of_row(row, coloured=False) for row in rows}
        self._coloured = {row: latents.of_row(row, coloured=True) for row in rows}
        self._pairs = np.flatnonzero(latents.second >= 0)

    def _pool(self, role: str, repeated: Mapping[str, int]) -> list[int]:
        """List the rows to draw from, each as often as its concept is to be dwelt on."""
        rows = self._shelf.where(role)
        return [r for r in rows for _ in range(repeated.get(self._shelf.rows[r].concept, 1))]

    def draw(self, step: int) -> tuple[np.ndarray, list[str]]:
        """Choose a step's latents i64[B] and write their captions."""
        rng = np.random.default_rng([self._settings.seed, 5, step])
        chosen, captions = [], []
        for _ in range(self._plan.batch):
            index, caption = self._example(rng)
            chosen.append(index)
            captions.append("" if rng.random() < self._plan.dropped else caption)
        return np.array(chosen, np.int64), captions

    def _example(self, rng: np.random.Generator) -> tuple[int, str]:
        """Draw one latent and its caption."""
        dice = rng.random()
        rows = self._shelf.rows
        if dice < self._plan.paired:
            index = int(rng.choice(self._pairs))
            left, right = rows[self._set.row[index]], rows[self._set.second[index]]
            return index, self._captioner.pair(left.concept, right.concept, rng)
        again = dice < self._plan.paired + self._plan.recoloured
        pool = self._recoloured if again else self._originals
        row = pool[int(rng.integers(len(pool)))]
        picture = rows[row]
        if picture.role == "recoloured":
            caption = self._captioner.recoloured(picture.concept, picture.colour, rng)
        else:
            caption = self._captioner.plain(picture.concept, picture.own, rng)
        if rng.random() >= self._plan.coloured_background:
            return int(rng.choice(self._white[row])), caption
        index = int(rng.choice(self._coloured[row]))
        name = sorted(BACKGROUNDS)[int(self._set.background[index])]
        if "background" in caption:  # a template that says white
            caption = (
                self._captioner.recoloured(picture.concept, picture.colour, rng)
                if (picture.colour)
                else self._shelf.vocabulary.names(picture.concept)[0]
            )
        return index, self._captioner.on_background(caption, name, rng)

    def loss(self, step: int) -> Tensor:
        """Compute a step's loss."""
        chosen, captions = self.draw(step)
        token_ids = torch.from_numpy(encode(self._tokenizer, captions))
        x = torch.from_numpy(self._set.latents[chosen].astype(np.float32))
        random = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + 7 * step)
        batch = x.shape[0]
        strata = torch.randperm(batch, generator=random) + torch.rand(batch, generator=random)
        timesteps = (strata * (TRAIN_STEPS / batch)).long().clamp(0, TRAIN_STEPS - 1)
        noise = torch.randn(x.shape, generator=random)
        bar = self._alpha_bars[timesteps][:, None, None, None]
        signal, spread = bar.sqrt(), (1.0 - bar).sqrt()
        v = signal * noise - spread * x
        predicted = self._network(signal * x + spread * noise, timesteps, token_ids)
        return (predicted - v).square().mean()


def build(work: Path, settings: Settings, minutes: float, say: Callable[[str], None]) -> bool:
    """Train for some minutes; return True when the course is finished."""
    trainer = open_trainer(work, settings)
    for progress in trainer.run(minutes):
        say(progress.line("unet"))
    if trainer.done:
        say("unet: finished")
    return trainer.done


def open_trainer(work: Path, settings: Settings) -> Trainer:
    """Build the networks and take up the checkpoint in `WORK`, if there is one."""
    plan = settings.denoiser
    network = new_network(settings)
    lessons = Lessons(network, open_shelf(work, settings), open_latents(work), settings)
    course = Course(
        name="unet-state",
        steps=plan.steps,
        loss=lessons.loss,
        learning_rate=lambda step: cosine(
            step, plan.steps, warmup=settings.warmup_steps, peak=plan.learning_rate
        ),
        samples=lambda _: plan.batch,
        ema=plan.ema,
    )
    return Trainer(network, course, work, settings)
