"""How many tokens a prompt has, and in how many chunks the text encoder reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.promptsyntax import parse_prompt

if TYPE_CHECKING:
    from engine.tokenizer import Tokenizer

__all__ = ["Count", "count_tokens"]


@dataclass(frozen=True, slots=True)
class Count:
    """tokens: of the longest text that the prompt becomes. room: of one chunk. chunks: that it
    takes, of `room` each.
    """

    tokens: int
    room: int
    chunks: int


def count_tokens(
    text: str, tokenizers: "Sequence[Tokenizer]", steps: int, syntax: str, *, joins: bool = True
) -> Count:
    """Count as the engine will read it: signs of the syntax are none, BREAK begins a chunk.

    joins: AND has its meaning. Raises RequestError for what cannot be read.
    """
    most, chunks = 0, 1
    room = min(tokenizer.limit for tokenizer in tokenizers) - 2
    known: dict[str, int] = {}

    def length(run: str) -> int:
        if run not in known:
            known[run] = max(len(tokenizer.ids(run)) for tokenizer in tokenizers)
        return known[run]

    for part in parse_prompt(text, steps, syntax, joins=joins):
        for span in part.spans:
            sizes = [sum(length(run.text) for run in passage) for passage in span.passages]
            most = max(most, sum(sizes))
            chunks = max(chunks, sum(max(1, -(-size // room)) for size in sizes))
    return Count(most, room, chunks)
