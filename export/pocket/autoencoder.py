"""Stage `vae`: trains the AutoencoderKL (f = 8, 4 channels), then folds its latents' scale in.

Three parts: crops (many updates), whole pictures (what the norms see at work), and the decoder
alone with noisier latents. White and full colour are borders of the range: beyond them an error
costs nothing, and the last part asks for a little more than white, so that a small slip of the
UNet still gives white.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from export.errors import ExportError
from export.pocket import checkpoint
from export.pocket.icons import composite
from export.pocket.pictures import Shelf, open_shelf
from export.pocket.placement import compose, place, random_background, random_placement
from export.pocket.settings import Settings
from export.pocket.training import Course, Trainer, cosine

__all__ = [
    "build",
    "distortion",
    "encode_mean",
    "fold_scale",
    "load_autoencoder",
    "new_autoencoder",
    "to_signal",
]

_MARGIN = 0.02  # of -1..1: how far beyond white the decoder aims in the end
_PLAIN = 0.6  # of the pictures lie on white


def new_autoencoder(settings: Settings) -> AutoencoderKL:
    """Build the network with fresh weights."""
    plan = settings.autoencoder
    levels = len(plan.channels)
    network: Any = AutoencoderKL  # its annotations say tuples of one
    torch.manual_seed(settings.seed)
    return network(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=plan.channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=plan.groups,
        sample_size=settings.size,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def to_signal(pictures: np.ndarray) -> Tensor:
    """Turn uint8[B, H, W, 3] into f[B, 3, H, W] in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def distortion(
    y: Tensor, x: Tensor, *, weights: tuple[float, float, float], margin: float
) -> Tensor:
    """Compare a decoded picture with its original, both f[B, 3, H, W] in -1..1.

    `weights` are those of absolute error, squared error and the absolute error of neighbouring
    differences (edges). Where the original is at the border of the range, values beyond it are
    right; `margin` moves that border outwards.
    """
    over = (x > 0.995) & (y > 1.0 + margin)
    under = (x < -0.995) & (y < -1.0)
    border = torch.where(x > 0.995, x + margin, x)
    error = torch.where(over | under, torch.zeros_like(y), y - border)
    down, right = error.diff(dim=2).abs().mean(), error.diff(dim=3).abs().mean()
    absolute, squared, edges = weights
    return absolute * error.abs().mean() + squared * error.square().mean() + edges * (down + right)


class _Lessons:
    """Draws the batches of each part and computes their losses."""

    def __init__(self, vae: AutoencoderKL, shelf: Shelf, settings: Settings) -> None:
        self._vae: Any = vae
        self._shelf, self._settings = shelf, settings
        self._plan = settings.autoencoder
        self._common = shelf.where("concept", "recoloured")
        self._other = shelf.where("other")

    def part(self, step: int) -> str:
        """Name the part that a step belongs to."""
        if step < self._plan.crop_steps:
            return "crop"
        whole = self._plan.crop_steps + self._plan.whole_steps
        return "whole" if step < whole else "decoder"

    def samples(self, step: int) -> int:
        """Count a step's pictures in whole ones."""
        share = (self._plan.crop / self._settings.size) ** 2
        if self.part(step) == "crop":
            return max(1, round(self._plan.crop_batch * share))
        return self._plan.whole_batch

    def learning_rate(self, step: int) -> float:
        """Fall as a cosine within each part, from the part's own height."""
        plan, warmup = self._plan, self._settings.warmup_steps
        lengths = {
            "crop": plan.crop_steps,
            "whole": plan.whole_steps,
            "decoder": plan.decoder_steps,
        }
        factors = {"crop": 1.0, "whole": plan.whole_factor, "decoder": plan.decoder_factor}
        part = self.part(step)
        start = {"crop": 0, "whole": plan.crop_steps, "decoder": plan.crop_steps + plan.whole_steps}
        peak = plan.learning_rate * factors[part]
        return cosine(step - start[part], lengths[part], warmup=warmup, peak=peak)

    def batch(self, step: int) -> Tensor:
        """Draw a step's pictures: f[B, 3, H, W] in -1..1."""
        rng = np.random.default_rng([self._settings.seed, 2, step])
        crops = self.part(step) == "crop"
        count = self._plan.crop_batch if crops else self._plan.whole_batch
        drawn = []
        for _ in range(count):
            # Half the pictures come from the whole set, so that the VAE serves icons at large.
            pool = self._other if self._other and rng.random() < 0.5 else self._common
            rgba = self._shelf.rgba[pool[int(rng.integers(len(pool)))]]
            rgba = place(rgba, random_placement(rng, shift=6, smallest=0.8, flips=True))
            plain = rng.random() < _PLAIN
            picture = composite(rgba) if plain else compose(rgba, random_background(rng))
            drawn.append(self._crop(picture, rng) if crops else picture)
        return to_signal(np.stack(drawn))

    def _crop(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = picture.shape[0] - self._plan.crop
        y, x = (int(v) for v in rng.integers(0, room + 1, 2))
        return picture[y : y + self._plan.crop, x : x + self._plan.crop]

    def loss(self, step: int) -> Tensor:
        """Compute a step's loss."""
        part = self.part(step)
        x = self.batch(step)
        noise = torch.Generator().manual_seed(self._settings.seed * 1_000_003 + step)
        learning = part != "decoder"
        self._vae.encoder.requires_grad_(learning)
        self._vae.quant_conv.requires_grad_(learning)
        with torch.set_grad_enabled(learning):
            posterior = self._vae.encode(x).latent_dist
            spread = posterior.mean.detach().std(dim=(0, 2, 3), keepdim=True)
        amount = self._plan.latent_noise * (1.0 if learning else 1.5)
        shaken = torch.randn(posterior.mean.shape, generator=noise) * spread * amount
        y = self._vae.decode(posterior.mean + shaken).sample
        if not learning:
            return distortion(y, x, weights=(0.5, 4.0, 0.3), margin=_MARGIN)
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        return distortion(y, x, weights=(1.0, 1.0, 0.4), margin=0.0) + self._plan.kl_weight * kl


def fold_scale(vae: AutoencoderKL, centre: Tensor, deviation: Tensor) -> None:
    """Fold `(z - centre) / deviation`, both f[4], into the 1x1 convolutions around the latents.

    Afterwards the encoder gives scaled latents and the decoder takes them: scaling_factor is 1.
    """
    net: Any = vae
    before, after = net.quant_conv, net.post_quant_conv
    with torch.no_grad():
        channels = len(centre)
        before.weight[:channels] /= deviation[:, None, None, None]
        before.bias[:channels] = (before.bias[:channels] - centre) / deviation
        before.bias[channels:] -= 2.0 * deviation.log()
        after.bias += after.weight[:, :, 0, 0] @ centre
        after.weight *= deviation[None, :, None, None]


def encode_mean(vae: AutoencoderKL, signal: Tensor) -> Tensor:
    """Encode f[B, 3, H, W] in -1..1 to the middle of its posterior, f[B, 4, H/8, W/8]."""
    net: Any = vae
    return net.encode(signal).latent_dist.mean


@torch.no_grad()
def _measure_scale(vae: AutoencoderKL, shelf: Shelf, seed: int) -> tuple[Tensor, Tensor]:
    """Measure the latents: centre = those of white, deviation around it; f[4] each.

    White becomes zero, so that guidance, which stretches differences, leaves it alone.
    """
    pool = shelf.where("concept", "recoloured")
    rng = np.random.default_rng([seed, 3])
    chosen = [pool[int(k)] for k in rng.permutation(len(pool))[:256]]
    white = np.full((1, *shelf.rgba.shape[1:3], 3), 255, np.uint8)
    centre = encode_mean(vae, to_signal(white))[0].mean(dim=(1, 2))
    total, count = torch.zeros_like(centre), 0
    for start in range(0, len(chosen), 16):
        x = to_signal(composite(shelf.rgba[chosen[start : start + 16]]))
        z = encode_mean(vae, x) - centre[None, :, None, None]
        total += z.square().sum(dim=(0, 2, 3))
        count += z.shape[0] * z.shape[2] * z.shape[3]
    return centre, (total / count).sqrt()


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Open a diffusers folder's VAE in fp32, for reading."""
    return AutoencoderKL.from_pretrained(
        folder, torch_dtype=torch.float32, low_cpu_mem_usage=False
    ).eval()


def build(work: Path, settings: Settings, minutes: float, say: Callable[[str], None]) -> bool:
    """Train for some minutes; write `vae/` when the course is finished and return True."""
    if (work / "vae.json").exists():  # written last
        if not settings.agree_with(checkpoint.read_json(work / "vae.json")["settings"]):
            raise ExportError(
                "the finished VAE was made with other settings",
                hint="use its profile and optimizer, or another --work folder",
            )
        say("vae: finished before")
        return True
    shelf = open_shelf(work, settings)
    vae = new_autoencoder(settings)
    lessons = _Lessons(vae, shelf, settings)
    plan = settings.autoencoder
    course = Course(
        name="vae-state",
        steps=plan.crop_steps + plan.whole_steps + plan.decoder_steps,
        loss=lessons.loss,
        learning_rate=lessons.learning_rate,
        samples=lessons.samples,
        ema=plan.ema,
    )
    trainer = Trainer(vae, course, work, settings)
    for progress in trainer.run(minutes):
        say(progress.line("vae"))
    if not trainer.done:
        return False
    trainer.averaged().requires_grad_(False)
    centre, deviation = _measure_scale(vae, shelf, settings.seed)
    fold_scale(vae, centre, deviation)
    vae.save_pretrained(work / "vae")
    checkpoint.write_json(work / "vae.json", _summary(centre, deviation, settings))
    say("vae: finished")
    return True


def _summary(centre: Tensor, deviation: Tensor, settings: Settings) -> Mapping[str, object]:
    return {
        "centre": centre.tolist(),
        "deviation": deviation.tolist(),
        "settings": settings.as_dict(),
    }
