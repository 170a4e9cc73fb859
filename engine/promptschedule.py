r"""Prompts that change while a picture is drawn: `[from:to:when]` and `[one|other]`.

The rules are those of the AUTOMATIC1111 web interface: `[from:to:when]` is `from` for the first
`when` steps and `to` after them, `[to:when]` and `[from::when]` leave one of them out, and
`[one|other|...]` takes the next of them at every step. They nest, and what they hold may hold
emphasis, which stays text here (`engine.promptsyntax` reads it afterwards). Brackets inside must be
paired: one that is not is text, and so is every bracket around it. `\` takes the meaning from the
character behind it, and stays for the emphasis to read.

Reading takes time in proportion to the text's length and keeps its own stack, so that neither
thousands of brackets nor their depth do harm.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from engine.errors import RequestError

__all__ = ["NUMBER", "Schedule", "read_schedule"]

MAX_CHANGES = 1000  # places where one text changes: each is looked at for every step

NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_SIGNS: Final = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)

# A text, a bracket that stays text around other nodes, or a place where the text changes.
Node: TypeAlias = "str | list[Node] | _Switch | _Alternation"


@dataclass(frozen=True, slots=True)
class _Switch:
    """before: for the first `when` steps; after: for the others. when: a number as it was typed."""

    before: "list[Node]"
    after: "list[Node]"
    when: str

    def at(self, step: int, steps: int) -> "list[Node]":
        return self.before if step < last_step(self.when, steps) else self.after


@dataclass(frozen=True, slots=True)
class _Alternation:
    """options: one a step, again and again."""

    options: "list[list[Node]]"

    def at(self, step: int, steps: int) -> "list[Node]":  # noqa: ARG002 - as _Switch is asked
        return self.options[step % len(self.options)]


@dataclass(slots=True)
class _Open:
    """A bracket that is not closed yet: the nodes in it, cut at each `:` and `|`."""

    bracket: str
    pieces: "list[list[Node]]" = field(default_factory=lambda: [[]])
    marks: list[str] = field(default_factory=list[str])

    def as_text(self) -> "list[Node]":
        """Give what was read as text, the bracket and its marks included."""
        nodes: list[Node] = [self.bracket] if self.bracket else []
        for piece, mark in zip(self.pieces, [*self.marks, ""], strict=True):
            nodes += piece
            if mark:
                nodes.append(mark)
        return nodes


class Schedule:
    """A text as it reads at each step."""

    def __init__(self, nodes: "list[Node]") -> None:
        self._nodes = nodes

    def at(self, step: int, steps: int) -> str:
        """Give the text at a step, from 0, of `steps`."""
        found: list[str] = []
        waiting: list[Iterator[Node]] = [iter(self._nodes)]
        while waiting:
            for node in waiting[-1]:
                if isinstance(node, str):
                    found.append(node)
                    continue
                waiting.append(iter(node if isinstance(node, list) else node.at(step, steps)))
                break
            else:
                waiting.pop()
        return "".join(found)


def last_step(when: str, steps: int) -> int:
    """Give how many steps come before the change: a number with a point is a part of all steps."""
    value = float(when)
    if "." in when:
        value *= steps
    return int(max(0.0, min(value, float(steps))))


def read_schedule(text: str) -> Schedule | None:
    """Read what changes from step to step; None where nothing does, which is most texts.

    Raises RequestError for a text that changes in more than MAX_CHANGES places.
    """
    if "[" not in text:
        return None
    reader = _Reader()
    for sign in _SIGNS.findall(text):
        reader.take(sign)
    nodes = reader.finish()
    if reader.changes > MAX_CHANGES:
        raise RequestError(
            f"a prompt has {reader.changes} places like [from:to:when] or [one|other]; at most "
            f"{MAX_CHANGES} are allowed"
        )
    return Schedule(nodes) if reader.changes else None


class _Reader:
    """Reads sign by sign; what is open is on a stack, the whole text lowest."""

    def __init__(self) -> None:
        self.changes = 0
        self._stack = [_Open("")]

    def take(self, sign: str) -> None:
        top = self._stack[-1]
        if sign in "[(":
            self._stack.append(_Open(sign))
        elif sign in ":|" and top.bracket:
            top.marks.append(sign)
            top.pieces.append([])
        elif sign in "])":
            self._close(sign)
        else:
            top.pieces[-1].append(sign)

    def finish(self) -> "list[Node]":
        """Give the whole text; what is still open is text."""
        self._give_up()
        return self._stack[0].as_text()

    def _close(self, sign: str) -> None:
        top = self._stack[-1]
        if top.bracket + sign not in ("[]", "()"):
            node = None
        elif sign == ")":
            # Emphasis has one colon at most; more make it text, and so what is around it.
            node = [*top.as_text(), sign] if top.marks.count(":") <= 1 else None
        else:
            node = self._square(top)
        if node is None:
            self._give_up()
            self._stack[0].pieces[-1].append(sign)
            return
        self._stack.pop()
        self._stack[-1].pieces[-1].append(node)

    def _square(self, top: _Open) -> "Node | None":
        if not top.marks:
            return [*top.as_text(), "]"]  # emphasis, a weaker one
        colons = top.marks.count(":")
        if not colons:
            self.changes += 1
            return _Alternation(top.pieces)
        when = _plain(top.pieces[-1])
        if top.marks[-1] != ":" or colons > 2 or not NUMBER.fullmatch(when):
            return None
        self.changes += 1
        halves: list[list[Node]] = [[]]
        for piece, mark in zip(top.pieces[:-1], top.marks, strict=True):
            halves[-1] += piece
            if mark == "|":  # beside colons it is a character like others
                halves[-1].append(mark)
            else:
                halves.append([])
        return _Switch(halves[0] if colons == 2 else [], halves[colons - 1], when)

    def _give_up(self) -> None:
        """Take all that is open for text."""
        bottom = self._stack[0]
        for each in self._stack[1:]:
            bottom.pieces[-1] += each.as_text()
        del self._stack[1:]


def _plain(nodes: "Sequence[Node]") -> str:
    """Give the text of a piece without its outer blanks, or "" where it holds brackets."""
    if all(isinstance(node, str) for node in nodes):
        return "".join(node for node in nodes if isinstance(node, str)).strip()
    return ""
