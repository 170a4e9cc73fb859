"""The torch modules of `export.companions`: as they are traced, and as the reference runs them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.pipelines.stable_diffusion.safety_checker import (
    StableDiffusionSafetyChecker,
    cosine_distance,
)
from torch import Tensor, nn
from transformers import CLIPConfig

from export.checkpoint import Checkpoint
from export.errors import SourceError
from export.parameters import read_weight

__all__ = ["CALLS", "MODULES", "empty_companion", "load_companion"]

Config = Mapping[str, object]
Named = Mapping[str, Tensor]


def empty_companion(part: str, config: Config) -> Any:
    """Build the library's module of a folder ("tiny_vae", "safety_checker")."""
    if part == "tiny_vae":
        return AutoencoderTiny.from_config(dict(config))
    plain: Any = CLIPConfig.from_dict(dict(config) | {"dtype": "float32"})
    # Plain softmax: the same arithmetic as the reference of 2022, in fewer nodes than SDPA.
    for each in (plain, plain.vision_config):
        each._attn_implementation = "eager"  # noqa: SLF001  the library's own switch has no setter
    return StableDiffusionSafetyChecker(plain)


class TinyVaeDecoder(nn.Module):
    """`latent_sample f[B, 4, h, w] -> sample f[B, 3, 8h, 8w]`, about -1..1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = empty_companion("tiny_vae", config)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Decode latents that were divided by the tiny autoencoder's own scaling factor."""
        return self.net.decode(latent_sample, return_dict=False)[0]


class TinyVaeEncoder(nn.Module):
    """`sample f[B, 3, 8h, 8w]` in -1..1 `-> latent_sample f[B, 4, h, w]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = empty_companion("tiny_vae", config)

    def forward(self, sample: Tensor) -> Tensor:
        """Encode a picture to latents, without a distribution."""
        return self.net.encode(sample, return_dict=False)[0]


class SafetyChecker(nn.Module):
    """`clip_input f[B, 3, S, S] -> (cosines f[B, 17], f[B, 3])`, without the decision."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = empty_companion("safety_checker", config)

    def forward(self, clip_input: Tensor) -> tuple[Tensor, Tensor]:
        """Compare a prepared picture with the concepts."""
        return _cosines(self.net, {"clip_input": clip_input})


def _cosines(net: Any, x: Named) -> tuple[Tensor, Tensor]:
    embeds = net.visual_projection(net.vision_model(x["clip_input"])[1])
    return (
        cosine_distance(embeds, net.concept_embeds),
        cosine_distance(embeds, net.special_care_embeds),
    )


MODULES: Mapping[str, Callable[[Config], nn.Module]] = {
    "tiny_vae_decoder": TinyVaeDecoder,
    "tiny_vae_encoder": TinyVaeEncoder,
    "safety_checker": SafetyChecker,
}
CALLS: Mapping[str, Callable[[Any, dict[str, Tensor]], tuple[Tensor, ...]]] = {
    "tiny_vae_decoder": lambda net, x: (net.decode(x["latent_sample"]).sample,),
    "tiny_vae_encoder": lambda net, x: (net.encode(x["sample"]).latents,),
    "safety_checker": _cosines,
}


def load_companion(checkpoint: Checkpoint, part: str) -> nn.Module:
    """Load the library's module of a folder with the checkpoint's weights, in fp32.

    Half of a tiny autoencoder may be missing: what is there must fit, name by name.
    """
    module = empty_companion(part, checkpoint.configs[part])
    stored = {
        name: torch.from_numpy(read_weight(tensor).copy()).float()
        for name, tensor in checkpoint.tensors[part].items()
        if not name.endswith("position_ids")
    }
    halves = {name.partition(".")[0] for name in stored}
    known = module.state_dict()
    missing = [name for name in known if name not in stored and name.partition(".")[0] in halves]
    strange = sorted(set(stored) - set(known))
    if missing or strange:
        raise SourceError(f"{part}: the library does not fit '{(missing or strange)[0]}'")
    module.load_state_dict(stored, strict=False)
    return module.eval()
