"""From prompts to embeddings, in chunks of what the text encoder takes."""

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.backends import Session
    from engine.tokenizer import Tokenizer

__all__ = ["Conditioner"]

Float32 = NDArray[np.float32]
TokenIds = NDArray[np.int64]

KEPT = 128  # chunks; 30 MB for SD 1.x's 77 x 768


class Conditioner:
    """Encodes prompts. What a chunk of ids became is kept in memory, the last 128 of them.

    Long prompts are cut into chunks of L - 2 tokens, each encoded alone with its own begin and end,
    and joined along the sequence; the shorter of prompt and negative prompt is filled up with empty
    chunks. This is what the common front ends do; diffusers cuts the prompt off after one chunk.
    """

    def __init__(self, tokenizer: "Tokenizer", embed_dim: int) -> None:
        self._tokenizer = tokenizer
        self._embed_dim = embed_dim
        self._kept: OrderedDict[bytes, Float32] = OrderedDict()

    def tokens(self, texts: tuple[str, ...]) -> list[TokenIds]:
        """Give int64[n, L] for each text, all with the same n."""
        chunks = [self._tokenizer.encode(text) for text in texts]
        most = max(len(each) for each in chunks)
        if all(len(each) == most for each in chunks):
            return chunks
        empty = self._tokenizer.encode("")  # (1, L)
        return [np.concatenate([each, *[empty] * (most - len(each))]) for each in chunks]

    def embed(self, token_ids: list[TokenIds], text_encoder: "Session") -> Float32:
        """Give prompt_embeds f32[len(token_ids), n * L, C]. Raises BundleError on a wrong width."""
        rows = [
            np.concatenate([self._chunk(chunk, text_encoder) for chunk in each])
            for each in token_ids
        ]
        return np.stack(rows)  # (halves, n * L, C)

    def _chunk(self, ids: TokenIds, text_encoder: "Session") -> Float32:
        key = ids.tobytes()
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        output = text_encoder.run({"input_ids": ids[None]})  # (1, L, C)
        if output.shape != (1, len(ids), self._embed_dim):
            raise BundleError(
                f"the text encoder gives {output.shape}; (1, {len(ids)}, {self._embed_dim}) is "
                "what the bundle says"
            )
        embeds = self._kept[key] = output[0].copy()
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return embeds
