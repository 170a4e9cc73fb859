"""From prompts to embeddings, in chunks of what the text encoders take."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.backends import Session
    from engine.tokenizer import Tokenizer

__all__ = ["Conditioner", "Conditioning"]

Float32 = NDArray[np.float32]
TokenIds = NDArray[np.int64]

KEPT = 128  # chunks; 30 MB for SD 1.x's 77 x 768, 80 MB for SDXL's 77 x 2048


class Conditioning(NamedTuple):
    """What the network is given of the prompts: embeds f32[halves, n * L, C], and the pooled texts
    f32[halves, P] where a text encoder gives one.
    """

    embeds: Float32
    pooled: Float32 | None


class Conditioner:
    """Encodes prompts. What a chunk of ids became is kept in memory, the last 128 of them.

    Long prompts are cut into chunks of L - 2 tokens, each encoded alone with its own begin and end,
    and joined along the sequence; the shorter of prompt and negative prompt is filled up with empty
    chunks. This is what the common front ends do; diffusers cuts the prompt off after one chunk.
    Several text encoders' embeddings are joined along the channels; the pooled text is that of the
    first chunk.
    """

    def __init__(
        self,
        tokenizers: "Sequence[Tokenizer]",
        embed_dim: int,
        *,
        zero_empty: bool = False,
        outputs: Sequence[Sequence[int]] = (),
    ) -> None:
        """tokenizers: one a text encoder. embed_dim: C, of all of them together. zero_empty: an
        empty negative prompt is all zeros, as SDXL was trained. outputs: for each text encoder,
        the places of those of its outputs that are used; all where there are none.
        """
        self._tokenizers = tuple(tokenizers)
        self._embed_dim = embed_dim
        self._zero_empty = zero_empty
        self._outputs = tuple(tuple(places) for places in outputs) or ((),) * len(self._tokenizers)
        self._kept: OrderedDict[bytes, tuple[Float32, Float32 | None]] = OrderedDict()

    def tokens(self, texts: tuple[str, ...]) -> list[TokenIds]:
        """Give int64[encoders, n, L] for each text, all with the same n."""
        chunks = [[each.encode(text) for each in self._tokenizers] for text in texts]
        most = max(len(ids) for each in chunks for ids in each)
        empty = [each.encode("") for each in self._tokenizers]  # (1, L)
        return [
            np.stack(
                [
                    np.concatenate([ids, *[none] * (most - len(ids))])
                    for ids, none in zip(each, empty, strict=True)
                ]
            )
            for each in chunks
        ]

    def embed(
        self, token_ids: Sequence[TokenIds], text_encoders: "Sequence[Session]"
    ) -> Conditioning:
        """Encode what `tokens` gave. Raises BundleError on a wrong width."""
        embeds: list[Float32] = []
        pooled: list[Float32] = []
        for place, ids in enumerate(token_ids):
            chunks = [self._chunk(chunk, text_encoders) for chunk in ids.swapaxes(0, 1)]
            whole = np.concatenate([each for each, _ in chunks])
            text = chunks[0][1]
            if self._zero_empty and place < len(token_ids) - 1 and self._is_empty(ids):
                whole, text = np.zeros_like(whole), None if text is None else np.zeros_like(text)
            embeds.append(whole)
            if text is not None:
                pooled.append(text)
        return Conditioning(np.stack(embeds), np.stack(pooled) if pooled else None)

    def _is_empty(self, ids: TokenIds) -> bool:
        empty = np.stack([each.encode("")[0] for each in self._tokenizers])  # (encoders, L)
        return bool((ids == empty[:, None]).all())

    def _chunk(
        self, ids: TokenIds, text_encoders: "Sequence[Session]"
    ) -> tuple[Float32, Float32 | None]:
        """Give f32[L, C] and the pooled text f32[P] of int64[encoders, L]."""
        key = ids.tobytes()
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        outputs = [
            list(encoder.run_all({"input_ids": one[None]}).values())
            for encoder, one in zip(text_encoders, ids, strict=True)
        ]
        outputs = [
            [each[place] for place in places] or each
            for each, places in zip(outputs, self._outputs, strict=True)
        ]
        hidden = [next((x for x in each if x.ndim == 3), each[0]) for each in outputs]
        width = sum(each.shape[-1] for each in hidden)
        length = ids.shape[1]
        if width != self._embed_dim or any(each.shape[:2] != (1, length) for each in hidden):
            shapes = " and ".join(str(each.shape) for each in hidden)
            raise BundleError(
                f"the text encoders give {shapes}; (1, {length}, {self._embed_dim}) is "
                "what the bundle says"
            )
        texts = [x[0].copy() for each in outputs for x in each if x.ndim == 2]
        embeds = np.concatenate([each[0] for each in hidden], axis=-1)
        result = self._kept[key] = embeds, texts[0] if texts else None
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return result
