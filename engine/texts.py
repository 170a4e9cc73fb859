"""The texts of one request, tokenised: what the network is shown, and at which step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.promptsyntax import Part, Run, parse_prompt

if TYPE_CHECKING:
    from engine.request import GenerationRequest
    from engine.tokenizer import Tokenizer

__all__ = ["Texts", "TokenizedText", "plan_texts"]

Float32 = NDArray[np.float32]
TokenIds = NDArray[np.int64]
Passages = tuple[tuple[Run, ...], ...]


class TokenizedText(NamedTuple):
    """One text. ids int64[encoders, n, L], and as f32 of the same shape the weight of each id.

    unconditional: it stands where the network is told nothing, or what to avoid.
    """

    ids: TokenIds
    weights: Float32
    unconditional: bool


class Texts(NamedTuple):
    """All texts of a request, of equally many chunks.

    shown: for each step the places in `different` of what the network is shown, the unconditional
    text first where there is one. weights: of the conditional ones, as AND gives them. clip_skip:
    as in the request.
    """

    different: tuple[TokenizedText, ...]
    shown: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    clip_skip: int

    @property
    def halves(self) -> int:
        """Count the texts that the network is shown at once."""
        return len(self.shown[0])

    def go_with(self, other: "Texts") -> bool:
        """Say whether a network can be shown both at once, each with a picture of its own."""
        sizes = [(each.halves, each.tokens, each.weights) for each in (self, other)]
        return sizes[0] == sizes[1]

    @property
    def tokens(self) -> int:
        """Count the ids of one text in all its chunks: n * L."""
        return self.different[0].ids[0].size


def plan_texts(
    request: "GenerationRequest", steps: int, tokenizers: "Sequence[Tokenizer]", *, guided: bool
) -> Texts:
    """Read and tokenise the request's prompts for so many steps.

    guided: with the negative prompt as unconditional text, which several parts of a prompt need in
    any case. Raises RequestError for what cannot be read.
    """
    syntax = request.prompt_syntax
    parts = parse_prompt(request.prompt, steps, syntax)
    weights = tuple(part.weight for part in parts)
    unconditional = guided or len(parts) > 1
    if unconditional:
        parts = (*parse_prompt(request.negative_prompt, steps, syntax, joins=False), *parts)
    places: dict[tuple[Passages, bool], int] = {}
    columns = [
        _column(part, steps, places, unconditional=unconditional and place == 0)
        for place, part in enumerate(parts)
    ]
    texts = [
        _tokenised(passages, tokenizers, unconditional=is_unconditional)
        for passages, is_unconditional in places
    ]
    most = max(text.ids.shape[1] for text in texts)
    return Texts(
        tuple(_filled(text, tokenizers, most) for text in texts),
        tuple(zip(*columns, strict=True)),
        weights,
        request.clip_skip,
    )


def _column(
    part: Part, steps: int, places: dict[tuple[Passages, bool], int], *, unconditional: bool
) -> list[int]:
    """Give the place of a part's text at each step; texts not seen before get the next one."""
    found: list[int] = []
    for span in part.spans:
        place = places.setdefault((span.passages, unconditional), len(places))
        found += [place] * (span.end - len(found))
    return found[:steps]


def _tokenised(
    passages: Passages, tokenizers: "Sequence[Tokenizer]", *, unconditional: bool
) -> TokenizedText:
    pairs = [_chunks(passages, tokenizer) for tokenizer in tokenizers]
    most = max(len(ids) for ids, _ in pairs)
    stacked = [
        (_extended(ids, tokenizer, most), _extended_weights(weights, most))
        for (ids, weights), tokenizer in zip(pairs, tokenizers, strict=True)
    ]
    ids, weights = (np.stack(each) for each in zip(*stacked, strict=True))
    return TokenizedText(ids, weights, unconditional)


def _chunks(passages: Passages, tokenizer: "Tokenizer") -> tuple[TokenIds, Float32]:
    """Give int64[n, L] and the weights f32[n, L], 1 for what begins, ends and fills up a chunk.

    A passage begins a chunk; the runs in it are tokenised one by one and stand close together.
    """
    room = tokenizer.limit - 2
    rows: list[TokenIds] = []
    row_weights: list[Float32] = []
    for number, passage in enumerate(passages):
        ids: list[int] = []
        by_id: list[float] = []
        for run in passage:
            found = tokenizer.ids(run.text)
            ids += found
            by_id += [run.weight] * len(found)
        if not ids and number and number == len(passages) - 1:
            break  # nothing is behind the last BREAK
        chunks = tokenizer.chunks(ids)  # (n, L)
        inner = np.ones((len(chunks), room), dtype=np.float32)
        inner.flat[: len(by_id)] = by_id
        weights = np.ones(chunks.shape, dtype=np.float32)
        weights[:, 1:-1] = inner
        rows.append(chunks)
        row_weights.append(weights)
    return np.concatenate(rows), np.concatenate(row_weights)


def _filled(text: TokenizedText, tokenizers: "Sequence[Tokenizer]", most: int) -> TokenizedText:
    """Append empty chunks up to so many."""
    if text.ids.shape[1] == most:
        return text
    ids = [_extended(each, one, most) for each, one in zip(text.ids, tokenizers, strict=True)]
    weights = [_extended_weights(each, most) for each in text.weights]
    return TokenizedText(np.stack(ids), np.stack(weights), text.unconditional)


def _extended(ids: TokenIds, tokenizer: "Tokenizer", most: int) -> TokenIds:
    return np.concatenate([ids, *[tokenizer.chunks([])] * (most - len(ids))])


def _extended_weights(weights: Float32, most: int) -> Float32:
    empty = np.ones((most - len(weights), weights.shape[1]), dtype=np.float32)
    return np.concatenate([weights, empty])
