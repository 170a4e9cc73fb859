"""Builds each component as a torch module without weights, with the inputs of its recipe.

Parameters are fake tensors: shapes without memory. Tracing needs no more, and the weights go from
safetensors into the bundle one by one, so that a large checkpoint is never whole in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.companion_modules import MODULES as COMPANION_MODULES
from export.errors import SourceError
from export.recipes import Part
from export.textlayers import output_names, text_results
from export.variant_modules import VARIANT_MODULES

__all__ = ["MODULES", "build_module", "parameter_shapes", "replace_upsampling"]

Config = Mapping[str, object]


class TextEncoder(nn.Module):
    """`input_ids i64[B, L] -> f[B, L, C]` for each output that `export.textlayers` names."""

    module = "text_encoder"
    kind: Any = CLIPTextModel

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = self.kind(_text_config(config))
        self.names = output_names(self.module, config)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Encode token ids."""
        return text_results(self.net, input_ids, self.names)


class LayeredTextEncoder(TextEncoder):
    """As `TextEncoder`, every layer an output: the first one of Stable Diffusion XL."""

    module = "text_encoder_layers"


class ProjectedTextEncoder(TextEncoder):
    """As `LayeredTextEncoder`, and before them f[B, P], the projected whole text."""

    module = "text_encoder_projected"
    kind = CLIPTextModelWithProjection


class Unet(nn.Module):
    """`sample f[B, 4 or 9, h, w], timestep f[], embeds f[B, T, C] -> out_sample f[B, 4, h, w]`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = UNet2DConditionModel.from_config(dict(config))
        replace_upsampling(self.net)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict eps, v or the sample, whatever the checkpoint was trained for."""
        return self.net(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class AddedUnet(nn.Module):
    """As `Unet`, with `text_embeds f[B, P], time_ids f[B, 6 or 5]` added to the timestep."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = UNet2DConditionModel.from_config(dict(config))
        replace_upsampling(self.net)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
    ) -> Tensor:
        """Predict eps or v. time_ids: height, width before cropping, top, left, height, width; the
        refiner takes how well a picture was liked in the place of the last two.
        """
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.net(
            sample,
            timestep,
            encoder_hidden_states,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


class DistilledUnet(Unet):
    """As `Unet`, with `timestep_cond f[B, G]`, the embedded guidance scale."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  traced, never called as one
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor,
    ) -> Tensor:
        """Predict what the guided network would."""
        return self.net(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            return_dict=False,
        )[0]


class AddedDistilledUnet(AddedUnet):
    """As `AddedUnet`, with `timestep_cond f[B, G]`, the embedded guidance scale."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  as above
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
        timestep_cond: Tensor,
    ) -> Tensor:
        """Predict what the guided network would."""
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.net(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


class VaeDecoder(nn.Module):
    """`latent_sample f[B, 4, h, w] -> sample f[B, 3, 8h, 8w]` in -1..1; scaling is the caller's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = AutoencoderKL.from_config(dict(config))

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Decode latents that were divided by the scaling factor."""
        return self.net.decode(latent_sample, return_dict=False)[0]


class VaeEncoder(nn.Module):
    """`sample f[B, 3, 8h, 8w]` in -1..1 `-> latent_parameters f[B, 8, h, w]`: mean, log var."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = AutoencoderKL.from_config(dict(config))

    def forward(self, sample: Tensor) -> Tensor:
        """Encode a picture to the parameters of its latents' distribution."""
        return self.net.encode(sample, return_dict=False)[0].parameters


class CroppedUpsample(nn.Module):
    """Doubles height and width by repetition, then crops to `output_size`, then convolves.

    For a size of 2n or 2n - 1 that is what interpolating to the size gives, but it traces to a
    resize by constant factors, and the crop vanishes where a runtime knows the sizes.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`f[B, C, h, w] -> f[B, C, H, W]`."""
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if output_size is not None:
            x = x[:, :, : output_size[0], : output_size[1]]
        return self.conv(x)


def _text_config(config: Config) -> CLIPTextConfig:
    # SDPA in CLIP's causal mask form traces to more nodes (and a NaN guard) than plain softmax.
    plain = CLIPTextConfig.from_dict(dict(config) | {"dtype": "float32"})
    plain._attn_implementation = "eager"  # noqa: SLF001  the library's own switch has no setter
    return plain


def replace_upsampling(net: nn.Module) -> None:
    """Let a unet double its sizes in the form that `CroppedUpsample` describes."""
    for part in net.modules():
        samplers: Any = getattr(part, "upsamplers", None) or ()
        for place, old in enumerate(samplers):
            samplers[place] = CroppedUpsample(old.conv)


MODULES: Mapping[str, Callable[[Config], nn.Module]] = {
    "text_encoder": TextEncoder,
    "text_encoder_layers": LayeredTextEncoder,
    "text_encoder_projected": ProjectedTextEncoder,
    "unet": Unet,
    "unet_added": AddedUnet,
    "unet_added_distilled": AddedDistilledUnet,
    "unet_distilled": DistilledUnet,
    "vae_decoder": VaeDecoder,
    "vae_encoder": VaeEncoder,
    **COMPANION_MODULES,
    **VARIANT_MODULES,
}


def build_module(name: str, config: Config, mode: FakeTensorMode) -> nn.Module:
    """Build component `name` with fake float32 parameters. Raises SourceError on a bad config."""
    try:
        with torch.device("meta"):
            module = MODULES[name](config)
    except (TypeError, ValueError, KeyError) as error:
        raise SourceError(f"the configuration of {name} is not acceptable: {error}") from error
    _fake_parameters(module, mode)
    return module.eval()


def parameter_shapes(part: Part, config: Config) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the parameters that belong to `part`, by their state-dict names."""
    module: Any = build_module(part.module, config, FakeTensorMode())
    return {
        name: tuple(parameter.shape)
        for name, parameter in module.net.named_parameters()
        if name.startswith(part.prefixes or "")
    }


def _fake_parameters(module: nn.Module, mode: FakeTensorMode) -> None:
    """Put fake CPU tensors for the parameters, and the real values for known buffers."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            with mode:
                fake = torch.empty(parameter.shape, dtype=torch.float32)
            setattr(part, name, nn.Parameter(fake, requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if name != "position_ids":
                raise SourceError(f"the network has a buffer '{name}' of unknown content")
            part.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
