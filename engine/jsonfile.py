"""Reads JSON that others wrote: bounded in size, checked field by field, never trusted.

Every refusal is a BundleError that names file and field, what was found and what is allowed.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from engine.errors import BundleError

__all__ = ["Fields", "parse_json", "read_json"]

T = TypeVar("T")
TEXT_LIMIT = 4096  # characters of one text value; the longest real one is a licence's name
ITEMS_LIMIT = 1024  # entries of one list or object; a bundle has tens of files


def read_json(path: Path, limit: int, *, constants: bool = False) -> dict[str, object]:
    """Read the JSON object in `path`, at most `limit` bytes.

    constants: accept NaN and Infinity, which Python's writers put into scheduler configurations.
    Raises BundleError when the file is missing, too large, not JSON or not an object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise BundleError(f"{path.name} has more than {limit} bytes; at most {limit} are read")
    return parse_json(data, path.name, constants=constants)


def parse_json(data: bytes, where: str, *, constants: bool = False) -> dict[str, object]:
    """Parse bytes as one JSON object without repeated keys; `where` names it in errors."""
    refuse = None if constants else _refuse_constant
    try:
        value = cast(
            "object", json.loads(data, object_pairs_hook=_object_of_pairs, parse_constant=refuse)
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not good JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where} holds no JSON object")
    return cast("dict[str, object]", value)


def _object_of_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


class Fields:
    """One JSON object whose fields are taken one by one and checked; `done` refuses leftovers."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"{where} is {_kind(value)}; an object is needed")
        self._value = cast("dict[str, object]", value)
        if len(self._value) > ITEMS_LIMIT:
            raise BundleError(f"{where} has {len(self._value)} fields; at most {ITEMS_LIMIT}")
        self.where = where
        self._left = set(self._value)

    def text(self, key: str, pattern: str = r"[^\x00]*") -> str:
        """Take a text that matches the whole regular expression `pattern`."""
        value = self._take(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        if len(value) > TEXT_LIMIT or not re.fullmatch(pattern, value, re.DOTALL):
            raise BundleError(f"{self.where}: '{key}' is not acceptable; allowed: {pattern}")
        return value

    def optional_text(self, key: str) -> str | None:
        """Take a text, or None where the file says null or nothing."""
        if self._value.get(key) is None:
            self._left.discard(key)
            return None
        return self.text(key)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """Take one of the words in `allowed`."""
        value = self.text(key)
        if value not in allowed:
            shown = value[:40]
            raise BundleError(f"{self.where}: '{key}' is '{shown}'; one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """Take a whole number from `low` to `high`."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "a whole number")
        if not low <= value <= high:
            raise BundleError(f"{self.where}: '{key}' is {value}; from {low} to {high} is allowed")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """Take a finite number from `low` to `high`."""
        return _number(self._take(key), f"{self.where}: '{key}'", low, high)

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """Take a list of exactly `count` finite numbers."""
        values = self.items(key)
        if len(values) != count:
            raise BundleError(f"{self.where}: '{key}' has {len(values)} numbers; {count} needed")
        return tuple(_number(value, f"{self.where}: '{key}'", low, high) for value in values)

    def items(self, key: str) -> list[object]:
        """Take a list of bounded length, unchecked inside."""
        value = self._take(key)
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        found = cast("list[object]", value)
        if len(found) > ITEMS_LIMIT:
            raise BundleError(
                f"{self.where}: '{key}' has {len(found)} entries; {ITEMS_LIMIT} at most"
            )
        return found

    def fields(self, key: str) -> "Fields":
        """Take an object."""
        return Fields(self._take(key), f"{self.where}: {key}")

    def mapping(self, key: str) -> dict[str, object]:
        """Take an object, unchecked inside; the file's own limit bounds it."""
        self.fields(key)
        return cast("dict[str, object]", self._value[key])

    def each(self) -> list[str]:
        """Give all keys in the file's order."""
        return list(self._value)

    def mapped(self, key: str, make: "Callable[[Fields], T]") -> "dict[str, T]":
        """Take an object of objects and make something of each."""
        inner = self.fields(key)
        return {name: make(inner.fields(name)) for name in inner.each()}

    def done(self) -> None:
        """Refuse fields that nobody took: a newer or a foreign writer meant something by them."""
        if self._left:
            names = ", ".join(sorted(name[:40] for name in self._left)[:8])
            raise BundleError(f"{self.where} has unknown fields: {names}")

    def _take(self, key: str) -> object:
        if key not in self._value:
            raise BundleError(f"{self.where} lacks '{key}'")
        self._left.discard(key)
        return self._value[key]

    def _wrong(self, key: str, value: object, needed: str) -> BundleError:
        return BundleError(f"{self.where}: '{key}' is {_kind(value)}; {needed} is needed")


def _number(value: object, where: str, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BundleError(f"{where} is {_kind(value)}; a number is needed")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:  # NaN fails here as well
        raise BundleError(f"{where} is {number:g}; from {low:g} to {high:g} is allowed")
    return number


def _kind(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in (
        (dict, "an object"),
        (list, "a list"),
        (str, "a text"),
        (bool, "true or false"),
    ):
        if isinstance(value, kind):
            return name
    return "a number"
