"""From tokenised texts to embeddings, in chunks of what the text encoders take."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError, RequestError
from engine.moment import Moment
from engine.texts import Texts, TokenizedText, plan_texts

if TYPE_CHECKING:
    from engine.backends import Session
    from engine.request import GenerationRequest
    from engine.tokenizer import Tokenizer

__all__ = ["Conditioner", "Conditioning", "ScheduledConditioning"]

Float32 = NDArray[np.float32]
TokenIds = NDArray[np.int64]
Outputs = Callable[[int], Sequence[Sequence[int]]]

KEPT = 128  # chunks; 30 MB for SD 1.x's 77 x 768, 80 MB for SDXL's 77 x 2048
MAX_BYTES = 4 << 30  # of all embeddings of a request; a prompt that never changes stays below


class Conditioning(NamedTuple):
    """What the network is given of the prompts: embeds f32[halves, n * L, C], and the pooled texts
    f32[halves, P] where a text encoder gives one.
    """

    embeds: Float32
    pooled: Float32 | None

    def at(self, moment: Moment) -> "Conditioning":  # noqa: ARG002 - the same at each
        """Give what is shown at a moment: itself."""
        return self


class Shown(Protocol):
    """Texts that a network is shown, which may change from step to step."""

    @property
    def embeds(self) -> Float32:
        """Give those of the first step: f32[n, T, C]."""
        ...

    @property
    def pooled(self) -> Float32 | None:
        """Give those of the first step: f32[n, P]."""
        ...

    def at(self, moment: Moment) -> Conditioning:
        """Give what is shown at a moment; the same arrays until a text changes."""
        ...


class ScheduledConditioning:
    """Texts that change from step to step."""

    def __init__(
        self,
        texts: Sequence[tuple[Float32, Float32 | None]],
        shown: Sequence[tuple[int, ...]],
    ) -> None:
        """texts: embeds f32[n * L, C] and pooled f32[P] of each. shown: as in `Texts`."""
        self._texts = texts
        self._shown = shown
        self._places = shown[0]
        self._now = self._stacked()

    @property
    def embeds(self) -> Float32:
        """Give those of the first step: f32[halves, n * L, C]."""
        return self._first().embeds

    @property
    def pooled(self) -> Float32 | None:
        """Give those of the first step: f32[halves, P]."""
        return self._first().pooled

    def at(self, moment: Moment) -> Conditioning:
        """Give what is shown at a moment; the same arrays until a text changes.

        A pass of more or fewer steps than the texts were planned for goes through them at its own
        pace.
        """
        steps = len(self._shown)
        step = moment.step if moment.steps == steps else moment.step * steps // moment.steps
        return self._show(self._shown[step])

    def _first(self) -> Conditioning:
        return self._show(self._shown[0])

    def _show(self, places: tuple[int, ...]) -> Conditioning:
        if places != self._places:
            self._places = places
            self._now = self._stacked()
        return self._now

    def _stacked(self) -> Conditioning:
        return _stacked([self._texts[place] for place in self._places])


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
        outputs: Outputs = lambda _: (),
    ) -> None:
        """tokenizers: one a text encoder. embed_dim: C, of all of them together. zero_empty: an
        empty negative prompt is all zeros, as SDXL was trained. outputs: gives for a clip skip, and
        for each text encoder, the places of those of its outputs that are used; all where there are
        none.
        """
        self._tokenizers = tuple(tokenizers)
        self._embed_dim = embed_dim
        self._zero_empty = zero_empty
        self._outputs = outputs
        self._kept: OrderedDict[bytes, tuple[tuple[Float32, ...], Float32 | None]] = OrderedDict()

    def plan(self, request: "GenerationRequest", steps: int, *, guided: bool) -> Texts:
        """Tokenise the request's prompts for so many steps of the network.

        guided: with the negative prompt. Raises RequestError for what the text encoders cannot
        give, cannot take, or what takes too much memory.
        """
        self._outputs(request.clip_skip)
        texts = plan_texts(request, steps, self._tokenizers, guided=guided)
        size = len(texts.different) * texts.tokens * self._embed_dim * 4
        if size > MAX_BYTES:
            raise RequestError(
                f"the prompt's texts take {size >> 20} MB when they are encoded; at most "
                f"{MAX_BYTES >> 20} MB are allowed",
                hint="shorten it, or let it change at fewer steps",
            )
        return texts

    def embed(
        self, texts: Texts, text_encoders: "Sequence[Session]"
    ) -> Conditioning | ScheduledConditioning:
        """Encode what `plan` gave. Raises BundleError on a wrong width."""
        encoded = [self._text(text, texts.clip_skip, text_encoders) for text in texts.different]
        if len(set(texts.shown)) == 1:
            return _stacked([encoded[place] for place in texts.shown[0]])
        return ScheduledConditioning(encoded, texts.shown)

    def _text(
        self, text: TokenizedText, clip_skip: int, text_encoders: "Sequence[Session]"
    ) -> tuple[Float32, Float32 | None]:
        """Give f32[n * L, C] and the pooled text f32[P]."""
        chunks = [self._chunk(chunk, clip_skip, text_encoders) for chunk in text.ids.swapaxes(0, 1)]
        weights = text.weights.swapaxes(0, 1)  # (n, encoders, L)
        whole = np.concatenate(
            [
                np.concatenate([_emphasised(*pair) for pair in zip(hidden, each, strict=True)], -1)
                for (hidden, _), each in zip(chunks, weights, strict=True)
            ]
        )
        pooled = chunks[0][1]
        if self._zero_empty and text.unconditional and self._is_empty(text.ids):
            return np.zeros_like(whole), None if pooled is None else np.zeros_like(pooled)
        return whole, pooled

    def _is_empty(self, ids: TokenIds) -> bool:
        empty = np.stack([each.chunks([])[0] for each in self._tokenizers])  # (encoders, L)
        return bool((ids == empty[:, None]).all())

    def _chunk(
        self, ids: TokenIds, clip_skip: int, text_encoders: "Sequence[Session]"
    ) -> tuple[tuple[Float32, ...], Float32 | None]:
        """Give f32[L, c] of each encoder, and the pooled text f32[P], of int64[encoders, L]."""
        key = bytes([clip_skip]) + ids.tobytes()
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        outputs = [
            list(encoder.run_all({"input_ids": one[None]}).values())
            for encoder, one in zip(text_encoders, ids, strict=True)
        ]
        used = self._outputs(clip_skip) or ((),) * len(outputs)
        outputs = [
            [each[place] for place in places] or each
            for each, places in zip(outputs, used, strict=True)
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
        embeds = tuple(each[0].copy() for each in hidden)
        result = self._kept[key] = embeds, texts[0] if texts else None
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return result


def _emphasised(hidden: Float32, weights: Float32) -> Float32:
    """Multiply each token's embedding f32[L, c] by its weight f32[L], and keep the mean of all.

    As the AUTOMATIC1111 web interface does it by default. A mean that becomes zero is left alone.
    """
    if (weights == 1.0).all():
        return hidden
    scaled = hidden * weights[:, None]
    mean = float(scaled.mean(dtype=np.float64))
    restored = float(hidden.mean(dtype=np.float64)) / mean if mean else 1.0
    return scaled * np.float32(restored)


def _stacked(texts: Sequence[tuple[Float32, Float32 | None]]) -> Conditioning:
    pooled = [each for _, each in texts if each is not None]
    return Conditioning(np.stack([each for each, _ in texts]), np.stack(pooled) if pooled else None)
