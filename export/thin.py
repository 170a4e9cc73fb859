"""Fewer keys and values in a unet's largest self-attentions: those of every second row and column.

Smith et al., ToDo: Token Downsampling for Efficient Generation of High-Resolution Images (arXiv
2402.13573). Neighbouring places say nearly the same at that size; every place still asks.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from export.errors import SourceError

__all__ = ["STRIDE", "thin_attention", "thinned"]

STRIDE = 2  # rows and columns of places to one that is asked: a quarter of the keys


class _Sizes:
    """Height and width of what a transformer is given, seen as it comes in."""

    def __init__(self) -> None:
        self.height: Any = 0
        self.width: Any = 0

    def look(self, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        """Remember the size of f[B, C, h, w]."""
        self.height, self.width = given[0].shape[-2:]


class _ThinProcessor:
    """Computes self-attention f[B, h w, C] as another processor does, of a quarter of the keys."""

    def __init__(self, whole: Any, sizes: _Sizes) -> None:
        self._whole = whole
        self._sizes = sizes

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is not None:  # a layer that attends to the text alone
            return self._whole(attn, hidden_states, encoder_hidden_states, attention_mask)
        places = hidden_states.unflatten(1, (self._sizes.height, self._sizes.width))
        kept = places[:, ::STRIDE, ::STRIDE].flatten(1, 2)  # (B, h w / 4, C)
        return self._whole(attn, hidden_states, kept, attention_mask)


def thin_attention(net: Any) -> None:
    """Thin the self-attentions of a unet at the largest size that has any, for good. Raises
    SourceError where there are none.
    """
    _put_in(net)


@contextmanager
def thinned(net: Any) -> Generator[None]:
    """Thin a unet's self-attentions during the block."""
    hooks, processors = _put_in(net)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for attention, whole in processors:
            attention.set_processor(whole)


def _put_in(net: Any) -> tuple[list[Any], list[tuple[Any, Any]]]:
    levels = [getattr(block, "has_cross_attention", False) for block in net.down_blocks]
    if True not in levels:
        raise SourceError("the unet has no attention in its blocks: there is nothing to thin")
    first = levels.index(True)
    hooks: list[Any] = []
    processors: list[tuple[Any, Any]] = []
    for block in (net.down_blocks[first], net.up_blocks[-1 - first]):
        for transformer in block.attentions:
            sizes = _Sizes()
            hooks.append(transformer.register_forward_pre_hook(sizes.look))
            for layer in transformer.transformer_blocks:
                processors.append((layer.attn1, layer.attn1.processor))
                layer.attn1.set_processor(_ThinProcessor(layer.attn1.processor, sizes))
    return hooks, processors
