"""The recipe's numbers: one frozen object a profile, chosen once, written into each checkpoint.

`full` is what ships. `smoke` runs every stage in seconds and draws nothing worth seeing.
"""

import json
from dataclasses import asdict, dataclass, replace

from export.errors import ExportError

__all__ = [
    "PROFILES",
    "AutoencoderPlan",
    "DenoiserPlan",
    "LatentPlan",
    "PolishPlan",
    "Settings",
    "profile",
]


@dataclass(frozen=True, kw_only=True)
class AutoencoderPlan:
    """How the VAE is trained: crops, then whole pictures, then the decoder alone."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    groups: int = 4
    crop: int = 64  # pixels
    crop_steps: int = 2400
    crop_batch: int = 16
    whole_steps: int = 900
    decoder_steps: int = 1000
    whole_batch: int = 4
    learning_rate: float = 2e-3  # at the start; whole pictures and decoder by the factors below
    whole_factor: float = 0.5
    decoder_factor: float = 0.4
    kl_weight: float = 1e-5
    latent_noise: float = 0.04  # in units of the latents' deviation
    ema: float = 0.998


@dataclass(frozen=True, kw_only=True)
class LatentPlan:
    """How many placements of each picture are encoded once, before the UNet is trained."""

    original: int = 16
    recoloured: int = 6
    original_coloured: int = 4  # on coloured backgrounds
    recoloured_coloured: int = 1
    pairs: int = 3000
    shift: int = 3  # pixels either way
    smallest: float = 0.92  # scale
    batch: int = 16


@dataclass(frozen=True, kw_only=True)
class DenoiserPlan:
    """How UNet and text encoder are trained together."""

    channels: tuple[int, ...] = (96, 144)
    heads: tuple[int, ...] = (3, 4)
    groups: int = 16
    text_width: int = 128
    text_layers: int = 4
    text_heads: int = 4
    steps: int = 5300  # of `batch` samples: 170,000 in all
    batch: int = 32
    learning_rate: float = 2e-3
    ema: float = 0.998
    dropped: float = 0.10  # captions replaced by ""
    recoloured: float = 0.34
    paired: float = 0.05
    coloured_background: float = 0.08


@dataclass(frozen=True, kw_only=True)
class PolishPlan:
    """How the second course goes on from the first."""

    steps: int = 1600
    learning_rate: float = 6e-4
    share: float = 0.1  # of the concepts: those that the first model is least sure of
    emphasis: int = 4  # times as often as the others


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of a recipe."""

    name: str
    seed: int = 20260
    size: int = 128  # pixels
    concepts: int = 0  # 0: all of the list
    others: int = 0  # pictures beside the concepts that the VAE sees; 0: all
    unseen: int = 96  # icons that nothing is trained on: the VAE's examination
    checkpoint_seconds: float = 120.0
    warmup_steps: int = 150
    optimizer: str = "muon"
    weight_decay: float = 0.01
    clip: float = 1.0
    autoencoder: AutoencoderPlan = AutoencoderPlan()
    latents: LatentPlan = LatentPlan()
    denoiser: DenoiserPlan = DenoiserPlan()
    polish: PolishPlan = PolishPlan()

    def as_dict(self) -> dict[str, object]:
        """Say every number, for a checkpoint's header; a later course's are in its own."""
        numbers = asdict(self)
        del numbers["polish"]
        return numbers

    def agree_with(self, document: object) -> bool:
        """Tell whether a JSON document holds the same numbers."""
        return document == json.loads(json.dumps(self.as_dict()))


_FULL = Settings(name="full")
_SMOKE = Settings(
    name="smoke",
    concepts=12,
    others=24,
    unseen=8,
    checkpoint_seconds=5.0,
    warmup_steps=2,
    autoencoder=AutoencoderPlan(
        crop_steps=8, crop_batch=4, whole_steps=3, decoder_steps=3, whole_batch=2
    ),
    latents=LatentPlan(
        original=2, recoloured=1, original_coloured=1, recoloured_coloured=1, pairs=8, batch=8
    ),
    denoiser=DenoiserPlan(steps=10, batch=8),
    polish=PolishPlan(steps=4),
)
PROFILES = ("full", "smoke")


def profile(name: str, *, optimizer: str = "") -> Settings:
    """Find a profile by name. `optimizer` replaces the profile's choice, for comparisons."""
    known = {"full": _FULL, "smoke": _SMOKE}
    if name not in known:
        raise ExportError(f"unknown profile '{name}'", hint=f"choose one of {', '.join(PROFILES)}")
    return replace(known[name], optimizer=optimizer) if optimizer else known[name]
