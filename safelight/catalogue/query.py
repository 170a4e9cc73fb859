"""What people type into the search line, parsed: words, and fields such as `rating:>=3`.

    apple "studio light" -blurry model:pocket date:2026-11..2026-12 rating:>=3 is:favourite

Everything must hold at once; `-` before a word or a field turns it round; quotes keep blanks and
colons together. Words are looked for in prompt, note, tags and albums.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import TypeVar

from safelight.catalogue.text import fold
from safelight.exits import UsageError

__all__ = ["FLAGS", "SORTS", "Query", "QueryError", "Range", "Size", "Term", "named"]

T = TypeVar("T", int, float)
MAX_QUERY = 1000  # characters
MAX_TERMS = 32
MAX_WHOLE = 2**63 - 1  # the largest seed
FLAGS = (
    "derived",  # made of another picture
    "favourite",
    "flagged",  # by the model's safety checker
    "imported",
    "landscape",
    "noted",
    "portrait",
    "rated",
    "shared",  # left the vault at least once
    "square",
    "tagged",
    "trashed",
)
SORTS = ("newest", "oldest", "rating", "score")
_SAME = MappingProxyType({"favorite": "favourite", "fave": "favourite", "trash": "trashed"})
_TOKEN = re.compile(
    r'(?P<minus>-?)(?:(?P<field>[A-Za-z_]+):)?(?:"(?P<quoted>[^"]*)"?|(?P<bare>\S*))'
)
_COMPARISON = re.compile(r"(>=|<=|>|<|=)?(.*)", re.DOTALL)
_SIZE = re.compile(r"([^x×]+)[x×]([^x×]+)")
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_WHOLE = re.compile(r"\d{1,19}")
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d{1,9})?")


class QueryError(UsageError):
    """A search that cannot be understood; the message says which part of it."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included. Days are ordinals (`date.toordinal`)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Size:
    """A width and a height, in pixels."""

    width: Range
    height: Range


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. value: folded text, a flag's name, or numbers; as `field` has it."""

    field: str
    value: str | Range | Size
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What must hold of a picture at once, and in which order the pictures come."""

    terms: tuple[Term, ...] = ()
    sort: str = "newest"

    @classmethod
    def parse(cls, text: str, today: date) -> "Query":
        """Parse a search line. Raises QueryError; an unclosed quote reaches to the end."""
        if len(text) > MAX_QUERY:
            raise QueryError(f"a search has up to {MAX_QUERY} characters, got {len(text)}")
        terms: list[Term] = []
        sort = "newest"
        for match in _TOKEN.finditer(text):
            quoted = match["quoted"]
            value = (match["bare"] or "") if quoted is None else quoted
            field, negated = fold(match["field"] or ""), bool(match["minus"])
            if not field:
                if fold(value).strip():
                    terms += [Term("words", fold(value), negated)]
            elif field == "sort":
                sort = _choice("sort", value, SORTS)
            else:
                terms.append(Term(field, _value(field, value.strip(), today), negated))
            if len(terms) > MAX_TERMS:
                raise QueryError(f"a search has up to {MAX_TERMS} conditions")
        return cls(tuple(terms), sort)

    @property
    def wants_trash(self) -> bool:
        """Say whether it is about the trash; else what lies there is hidden."""
        return any(term.field == "is" and term.value == "trashed" for term in self.terms)


def named(field: str, name: str) -> str:
    """Return the search for what has this tag, album or model, whatever the name holds."""
    start, quote, _ = name.partition('"')
    return f'{field}:"{start}{"*" if quote else ""}"'


def _value(field: str, text: str, today: date) -> str | Range | Size:
    read = _FIELDS.get(field)
    if read is None:
        near = difflib.get_close_matches(field, [*_FIELDS, "sort"], 1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise QueryError(
            f"there is no field '{field}' to search{guess}",
            hint=f"fields: {', '.join([*_FIELDS, 'sort'])}; put text with a colon in quotes",
        )
    if not text:
        raise QueryError(f"'{field}:' needs a value, such as {field}:{_EXAMPLES[field]}")
    return read(field, text, today)


def _text(_field: str, text: str, _today: date) -> str:
    return fold(text)


def _id(field: str, text: str, _today: date) -> str:
    text = text.lower()
    if len(text) > 32 or set(text) - set("0123456789abcdef"):
        raise QueryError(f"'{field}:' takes up to 32 hex digits, got '{text[:40]}'")
    return text


def _flag(field: str, text: str, _today: date) -> str:
    return _choice(field, text, FLAGS)


def _choice(field: str, text: str, allowed: tuple[str, ...]) -> str:
    text = fold(text)
    text = _SAME.get(text, text)
    if text not in allowed:
        raise QueryError(f"'{field}:' takes {', '.join(allowed)}; got '{text[:40]}'")
    return text


def _whole(field: str, text: str, _today: date) -> Range:
    def number(part: str) -> tuple[int, int]:
        if not _WHOLE.fullmatch(part) or int(part) > MAX_WHOLE:
            raise QueryError(f"'{field}:' takes whole numbers, such as {field}:{_EXAMPLES[field]}")
        return int(part), int(part)

    return _range(text, number, (0, MAX_WHOLE), (lambda n: n - 1, lambda n: n + 1))


def _decimal(field: str, text: str, _today: date) -> Range:
    def number(part: str) -> tuple[float, float]:
        if not _DECIMAL.fullmatch(part):
            raise QueryError(f"'{field}:' takes numbers, such as {field}:{_EXAMPLES[field]}")
        return float(part), float(part)

    below, above = (lambda x: math.nextafter(x, -1)), (lambda x: math.nextafter(x, math.inf))
    return _range(text, number, (0.0, math.inf), (below, above))


def _size(field: str, text: str, today: date) -> Size:
    sign, rest = _compared(text)
    parts = _SIZE.fullmatch(rest)
    if parts is None:
        raise QueryError(f"'{field}:' takes width x height, such as {field}:{_EXAMPLES[field]}")
    width, height = (_whole(field, (sign or "") + part.strip(), today) for part in parts.groups())
    return Size(width, height)


def _days(field: str, text: str, today: date) -> Range:
    def days(part: str) -> tuple[int, int]:
        ago = {"today": 0, "yesterday": 1}.get(fold(part))
        if ago is not None:
            day = today.toordinal() - ago
            return day, day
        match = _DATE.fullmatch(part)
        if match is None:
            raise refused
        try:
            return _first_and_last(*(int(each or 0) for each in match.groups()))
        except ValueError:
            raise refused from None

    refused = QueryError(
        f"'{field}:' takes days, months or years, such as {field}:{_EXAMPLES[field]}"
    )
    bounds = (1, date.max.toordinal())
    return _range(text, days, bounds, (lambda n: n - 1, lambda n: n + 1))


def _first_and_last(year: int, month: int, day: int) -> tuple[int, int]:
    """Return the first and last day of a day, a month (day 0) or a year (month 0), as ordinals."""
    first = date(year, month or 1, day or 1).toordinal()
    if day:
        return first, first
    after = date(year + month // 12, month % 12 + 1, 1) if month else date(year + 1, 1, 1)
    return first, after.toordinal() - 1


def _range(
    text: str,
    read: Callable[[str], tuple[T, T]],
    bounds: tuple[T, T],
    steps: tuple[Callable[[T], T], Callable[[T], T]],
) -> Range:
    """Read `a`, `a..b`, `a..`, `..b` or a comparison; `read` gives what a part begins and ends."""
    least, most = bounds
    if ".." in text:
        first, _, last = text.partition("..")
        return Range(
            read(first.strip())[0] if first.strip() else least,
            read(last.strip())[1] if last.strip() else most,
        )
    sign, rest = _compared(text)
    low, high = read(rest)
    below, above = steps
    ranges = {
        ">=": (low, most),
        ">": (above(high), most),
        "<=": (least, high),
        "<": (least, below(low)),
    }
    return Range(*ranges.get(sign or "", (low, high)))


def _compared(text: str) -> tuple[str | None, str]:
    match = _COMPARISON.fullmatch(text)
    assert match is not None  # noqa: S101 - every text matches
    return match[1], match[2].strip()


_FIELDS: Mapping[str, Callable[[str, str, date], str | Range | Size]] = MappingProxyType(
    {
        "album": _text,
        "date": _days,
        "guidance": _decimal,
        "height": _whole,
        "id": _id,
        "is": _flag,
        "model": _text,
        "neg": _text,
        "parent": _id,
        "rating": _whole,
        "sampler": _text,
        "score": _decimal,
        "seed": _whole,
        "size": _size,
        "steps": _whole,
        "tag": _text,
        "width": _whole,
    }
)
_EXAMPLES = MappingProxyType(
    {
        "album": "holiday",
        "date": "2026-11..2026-12",
        "guidance": "7.5",
        "height": ">=512",
        "id": "3f9a",
        "is": "favourite",
        "model": "pocket",
        "neg": "blurry",
        "parent": "3f9a",
        "rating": ">=3",
        "sampler": "euler",
        "score": ">=5.5",
        "seed": "42",
        "size": "512x512",
        "steps": "20..30",
        "tag": "portrait",
        "width": ">=512",
    }
)
