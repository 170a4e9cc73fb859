"""Builds what goes with a unet as torch modules without weights: the ControlNet, and the unet's own
variants. All forwards take tensors in the order of their ports, since the number varies.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from export.thin import thin_attention

__all__ = ["VARIANT_MODULES", "added_of", "deep_and_sample"]

Config = Mapping[str, object]
PLAIN = ("sample", "timestep", "encoder_hidden_states")
ADDED = ("text_embeds", "time_ids")


class ControlNet(nn.Module):
    """The unet's way down with a picture f[B, 3, 8h, 8w] in 0..1 added, giving what its unet adds
    to each skip connection (Zhang et al., arXiv 2302.05543).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net: Any = ControlNetModel.from_config(dict(config))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give the residuals, the middle's last, times the conditioning scale."""
        sample, timestep, text, picture, scale, *more = inputs
        down, middle = self.net(
            sample,
            timestep,
            text,
            picture,
            scale,
            added_cond_kwargs=added_of(more),
            return_dict=False,
        )
        return (*down, middle)


class ControlledUnet(nn.Module):
    """As the unet, with a ControlNet's residuals behind its inputs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = _unet(config)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict eps or v."""
        count = len(PLAIN) + len(ADDED) * (self.net.config.addition_embed_type == "text_time")
        own, (*down, middle) = inputs[:count], inputs[count:]
        return self.net(
            *own[: len(PLAIN)],
            added_cond_kwargs=added_of(own[len(PLAIN) :]),
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]


class DeepUnet(nn.Module):
    """As the unet, and gives what enters its last up block, f[B, C, h, w], as well."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = _unet(config)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Predict eps or v; give it and the deep feature."""
        return deep_and_sample(
            self.net,
            lambda: self.net(
                *inputs[: len(PLAIN)],
                added_cond_kwargs=added_of(inputs[len(PLAIN) :]),
                return_dict=False,
            )[0],
        )


class ThinUnet(nn.Module):
    """As the unet, with fewer keys in its largest self-attentions (`export.thin`)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = _unet(config)
        thin_attention(self.net)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict about what the unet does."""
        return self.net(
            *inputs[: len(PLAIN)],
            added_cond_kwargs=added_of(inputs[len(PLAIN) :]),
            return_dict=False,
        )[0]


class ShallowUnet(nn.Module):
    """The unet's first and last blocks around a deep feature of an earlier step."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = _unet(config)
        self.net.down_blocks[0].downsamplers = None  # its result would go down

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict eps or v. The deep feature f[B, C, h, w] is the last input."""
        net, (sample, timestep, text) = self.net, inputs[: len(PLAIN)]
        if net.config.center_input_sample:
            sample = 2 * sample - 1.0
        emb = net.time_embedding(net.get_time_embed(sample=sample, timestep=timestep))  # (B, 4C)
        added = net.get_aug_embed(
            emb=emb,
            encoder_hidden_states=text,
            added_cond_kwargs=added_of(inputs[len(PLAIN) : -1]),
        )
        if added is not None:
            emb = emb + added
        if net.time_embed_act is not None:
            emb = net.time_embed_act(emb)
        first, last = net.down_blocks[0], net.up_blocks[-1]
        x = net.conv_in(sample)  # (B, C, h, w)
        _, skips = first(hidden_states=x, temb=emb, **_text(first, text))
        x = last(
            hidden_states=inputs[-1],
            temb=emb,
            res_hidden_states_tuple=(x, *skips),
            **_text(last, text),
        )
        if net.conv_norm_out is not None:
            x = net.conv_act(net.conv_norm_out(x))
        return net.conv_out(x)  # (B, 4, h, w)


def added_of(inputs: Sequence[Tensor]) -> dict[str, Tensor] | None:
    """Name what XL adds to the timestep, text_embeds and time_ids; None where there is nothing."""
    return dict(zip(ADDED, inputs, strict=True)) if inputs else None


def deep_and_sample(net: Any, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Run a unet and give its result and what entered its last up block meanwhile."""
    seen: list[Tensor] = []

    def look(_module: nn.Module, _args: object, given: dict[str, Any]) -> None:
        seen.append(given["hidden_states"])

    hook = net.up_blocks[-1].register_forward_pre_hook(look, with_kwargs=True)
    try:
        return run(), seen[-1]
    finally:
        hook.remove()


def _unet(config: Config) -> Any:
    from export.modules import replace_upsampling  # which imports this module's table

    net: Any = UNet2DConditionModel.from_config(dict(config))
    replace_upsampling(net)
    return net


def _text(block: Any, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


VARIANT_MODULES: Mapping[str, Callable[[Config], nn.Module]] = {
    "controlnet": ControlNet,
    "unet_control": ControlledUnet,
    "unet_deep": DeepUnet,
    "unet_shallow": ShallowUnet,
    "unet_thin": ThinUnet,
}
