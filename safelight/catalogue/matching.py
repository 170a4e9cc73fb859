"""Which records of a chunk fit a query: one mask a condition, all of them at once."""

from typing import TYPE_CHECKING, Any

import numpy as np

from safelight.catalogue.chunk import BITS, Chunk
from safelight.catalogue.query import Query, Range, Size, Term
from safelight.catalogue.text import fold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["matching"]

_TABLES = {"model": "model", "sampler": "sampler", "tag": "tags", "album": "albums"}
_COLUMNS = {"date": "day"}  # where it is not the field's own name
_DIGITS = 16  # hex digits of half an id


def matching(chunk: Chunk, query: Query) -> "NDArray[np.bool_]":
    """Return bool[n]: which records of the chunk fit."""
    columns = chunk.columns
    fits = (columns["trashed"] != 0) == query.wants_trash
    # Texts cost most: they come last, and not at all where nothing is left.
    for term in sorted(query.terms, key=lambda term: term.field in ("words", "neg")):
        if not fits.any():
            break
        fits &= _mask(chunk, term) != term.negated
    return fits


def _mask(chunk: Chunk, term: Term) -> "NDArray[np.bool_]":
    columns, value = chunk.columns, term.value
    if isinstance(value, Size):
        return _within(columns["width"], value.width) & _within(columns["height"], value.height)
    if isinstance(value, Range):
        return _within(columns[_COLUMNS.get(term.field, term.field)], value)
    if term.field in ("words", "neg"):
        return (chunk.words if term.field == "words" else chunk.negatives).holding(value)
    if term.field in ("id", "parent"):
        return _begins(columns[term.field], value)
    if term.field == "is":
        return _flagged(chunk, value)
    fitting = _fitting(term.field, value)
    table = _TABLES[term.field]
    return np.array([fitting(each) for each in chunk.tables[table]], np.bool_)[columns[table]]


def _within(column: "NDArray[Any]", value: Range) -> "NDArray[np.bool_]":
    return (column >= value.low) & (column <= value.high)


def _begins(ids: "NDArray[np.uint64]", digits: str) -> "NDArray[np.bool_]":
    low, high = int(digits.ljust(32, "0"), 16), int(digits.ljust(32, "f"), 16)
    first = _between(ids[:, 0], low >> 64, high >> 64)
    if len(digits) <= _DIGITS:
        return first
    return first & _between(ids[:, 1], low & (1 << 64) - 1, high & (1 << 64) - 1)


def _between(column: "NDArray[np.uint64]", low: int, high: int) -> "NDArray[np.bool_]":
    return (column >= np.uint64(low)) & (column <= np.uint64(high))


def _flagged(chunk: Chunk, flag: str) -> "NDArray[np.bool_]":
    columns = chunk.columns
    if flag in BITS:
        return (columns["flags"] & BITS[flag]).astype(np.bool_)
    if flag == "rated":
        return columns["rating"] > 0
    if flag == "derived":
        parents = columns["parent"]
        return (parents[:, 0] | parents[:, 1]) != 0
    if flag == "tagged":
        return np.array([bool(tags) for tags in chunk.tables["tags"]], np.bool_)[columns["tags"]]
    width, height = columns["width"], columns["height"]
    known = (width > 0) & (height > 0)
    if flag == "square":
        return known & (width == height)
    return known & ((width > height) if flag == "landscape" else (width < height))


def _fitting(field: str, text: str) -> "Callable[[Any], bool]":
    """Return whether a table's entry fits: models and samplers by a part of the name, tags and
    albums by the whole, or by its start before a `*`.
    """
    if field in ("model", "sampler"):
        return lambda name: text in fold(name)
    if text.endswith("*"):
        start = text[:-1]
        return lambda names: any(fold(name).startswith(start) for name in names)
    return lambda names: any(fold(name) == text for name in names)
