"""Wildcards: `__animal__` in a prompt becomes a line of the word list `animal`, by the seed.

Which line it is depends on the seed and on the wildcard's place in the prompt alone, on every
machine and in every version, so that a prompt and a seed give the same picture for ever.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from engine.errors import RequestError

__all__ = ["fill_in", "wildcards_of"]

WILDCARD: Final = re.compile(r"__([A-Za-z0-9][A-Za-z0-9 .-]*(?:_[A-Za-z0-9 .-]+)*)__")
DEPTH: Final = 8  # lists that name lists
MOST: Final = 256  # wildcards filled in a prompt


def wildcards_of(text: str) -> tuple[str, ...]:
    """Name the word lists that a prompt asks for, each once."""
    return tuple(dict.fromkeys(WILDCARD.findall(text)))


def fill_in(text: str, lists: Mapping[str, Sequence[str]], seed: int) -> str:
    """Put a line of its list in the place of each wildcard, also of those that lines bring along.

    Raises RequestError for a list that is not there, and for lists that lead to each other.
    """
    filled = 0
    for depth in range(DEPTH):
        place = 0

        def line(match: re.Match[str], depth: int = depth) -> str:
            nonlocal place
            place += 1
            return _line(match[1], lists, f"{seed} {depth} {place}")

        text, found = WILDCARD.subn(line, text)
        filled += found
        if not found:
            return text
        if filled > MOST:
            break
    raise RequestError(
        "the wildcards of this prompt lead to ever more wildcards",
        hint=f"word lists may name each other {DEPTH} deep, {MOST} times in all",
    )


def _line(name: str, lists: Mapping[str, Sequence[str]], draw: str) -> str:
    lines = lists.get(name)
    if not lines:
        near = get_close_matches(name, list(lists), n=1)
        meant = f"; did you mean '__{near[0]}__'?" if near else ""
        raise RequestError(
            f"there is no word list '{name}'{meant}",
            hint=f"there are: {', '.join(sorted(lists)) or 'none'}",
        )
    number = int.from_bytes(hashlib.sha256(f"{draw} {name}".encode()).digest()[:8])
    return lines[number % len(lines)]
