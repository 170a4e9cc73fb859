r"""What the signs in a prompt mean, as the AUTOMATIC1111 web interface has it.

    (word)  (word:1.3)  [word]        1.1 times, 1.3 times, a 1.1th of the weight; they nest
    \(  \)  \[  \]  \\                the character itself
    [from:to:when]  [one|other]       change while the picture is drawn: `engine.promptschedule`
    one BREAK other                   `other` begins a new chunk of the text encoder
    one AND other :0.5                two texts, each pulling with its weight (Liu et al.,
                                      arXiv 2206.01714); only in the prompt, not in the negative one

A bracket that nothing opens is a character, one that nothing closes reaches to the end. Unlike
there, a number behind the last colon is a weight only where the prompt has an AND: "at 16:9" is a
text. The syntax `plain` takes every character as it is.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from engine.errors import RequestError
from engine.promptschedule import NUMBER, read_schedule

__all__ = ["Part", "Run", "Span", "parse_prompt"]

ROUND, SQUARE = 1.1, 1 / 1.1
# Every part is a copy of the latents that the network computes at each step.
MAX_PARTS = 16
MAX_BREAKS = 255  # each makes a chunk of its own, however short
MAX_LENGTH = 1 << 18  # characters of all different texts of one schedule: four of the longest
MAX_WEIGHT = 100.0  # beyond it nothing is recognised, and float32 would overflow in the end
_DIGITS = 6  # of a weight behind the point; what differs less is one weight and one run

_SIGNS: Final = re.compile(
    r"\\[()\[\]\\]|\\|[()\[\]]|:\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*\)|[^\\()\[\]:]+|:", re.ASCII
)
_AND: Final = re.compile(r"\bAND\b")
_BREAK: Final = re.compile(r"\bBREAK\b")


class Run(NamedTuple):
    """Words of one weight; they are tokenised together."""

    text: str
    weight: float


class Span(NamedTuple):
    """The text up to step `end`, which is not in it. passages: cut at BREAK, runs in each."""

    end: int
    passages: tuple[tuple[Run, ...], ...]


class Part(NamedTuple):
    """One of the texts that AND joins. weight: of its pull. spans: in order, to the last step."""

    weight: float
    spans: tuple[Span, ...]


def parse_prompt(
    text: str, steps: int, syntax: str = "a1111", *, joins: bool = True
) -> tuple[Part, ...]:
    """Read a prompt for so many steps. joins: AND has its meaning, as in the prompt itself.

    Odd brackets are no errors. Raises RequestError for more parts, breaks or changes than the
    network could be shown.
    """
    if syntax == "plain":
        return (Part(1.0, (Span(steps, ((Run(text, 1.0),),)),)),)
    pieces = _AND.split(text) if joins else [text]
    if len(pieces) > MAX_PARTS:
        raise RequestError(
            f"the prompt joins {len(pieces)} texts by AND; at most {MAX_PARTS} are allowed",
            hint="write `and` where it is only a word",
        )
    if len(pieces) == 1:
        return (Part(1.0, _spans(text, steps)),)
    return tuple(Part(weight, _spans(each, steps)) for each, weight in map(_weighed, pieces))


def _weighed(piece: str) -> tuple[str, float]:
    """Split "text :weight" as it stands between two ANDs."""
    head, colon, tail = piece.rpartition(":")
    number = tail.strip()
    if not colon or not NUMBER.fullmatch(number):
        return piece.strip(), 1.0
    return head.strip(), _bounded(float(number))


def _spans(text: str, steps: int) -> tuple[Span, ...]:
    schedule = read_schedule(text)
    if schedule is None:
        return (Span(steps, _passages(text)),)
    found: list[tuple[int, str]] = []
    read: dict[str, tuple[tuple[Run, ...], ...]] = {}
    length = 0
    for step in range(steps):
        now = schedule.at(step, steps)
        if found and found[-1][1] == now:
            found[-1] = (step + 1, now)
            continue
        found.append((step + 1, now))
        if now not in read:
            length += len(now)
            if length > MAX_LENGTH:
                raise RequestError(
                    f"a prompt becomes so many texts over {steps} steps that they pass "
                    f"{MAX_LENGTH} characters",
                    hint="let it change at fewer steps, or shorten it",
                )
            read[now] = _passages(now)
    return tuple(Span(end, read[now]) for end, now in found)


def _passages(text: str) -> tuple[tuple[Run, ...], ...]:
    """Read emphasis and breaks of a text that no longer changes."""
    passages: list[list[Run]] = [[]]
    for piece, weight in _weights(text):
        first, *others = _BREAK.split(piece) if "BREAK" in piece else [piece]
        _join(passages[-1], first.rstrip() if others else first, weight)
        for place, other in enumerate(others, start=1):
            passages.append([])
            _join(passages[-1], other.strip() if place < len(others) else other.lstrip(), weight)
    if len(passages) > MAX_BREAKS + 1:
        raise RequestError(
            f"the prompt has {len(passages) - 1} BREAKs; at most {MAX_BREAKS} are allowed"
        )
    return tuple(tuple(runs) or (Run("", 1.0),) for runs in passages)


def _join(runs: list[Run], text: str, weight: float) -> None:
    """Add text to a passage: to its last run where the weight is the same."""
    if not text:
        return
    if runs and runs[-1].weight == weight:
        runs[-1] = Run(runs[-1].text + text, weight)
    else:
        runs.append(Run(text, weight))


def _weights(text: str) -> Iterator[tuple[str, float]]:
    """Yield pieces of plain text with their weights. Round and square brackets may cross."""
    signs: list[str] = _SIGNS.findall(text)
    openings = _openings(signs)
    round_weights, square_weights = [1.0], [1.0]
    for place, sign in enumerate(signs):
        opened = openings.get(place)
        if opened is not None:
            stack = square_weights if sign == "[" else round_weights
            stack.append(_bounded(stack[-1] * opened))
        elif sign == "]" and len(square_weights) > 1:
            square_weights.pop()
        elif sign[-1] == ")" and sign[0] != "\\" and len(round_weights) > 1:
            round_weights.pop()
        else:
            plain = sign[1:] if sign[0] == "\\" else sign
            yield plain, round(_bounded(round_weights[-1] * square_weights[-1]), _DIGITS)


def _openings(signs: list[str]) -> dict[int, float]:
    """Give the factor of each opening bracket by its place: what closes it says which."""
    found: dict[int, float] = {}
    rounds: list[int] = []
    squares: list[int] = []
    for place, sign in enumerate(signs):
        if sign == "(":
            rounds.append(place)
            found[place] = ROUND
        elif sign == "[":
            squares.append(place)
            found[place] = SQUARE
        elif sign == "]" and squares:
            squares.pop()
        elif sign == ")" and rounds:
            rounds.pop()
        elif sign[0] == ":" and sign[-1] == ")" and rounds:
            found[rounds.pop()] = float(sign[1:-1])
    return found


def _bounded(weight: float) -> float:
    return max(-MAX_WEIGHT, min(weight, MAX_WEIGHT))
