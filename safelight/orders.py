"""What to generate, from the command line: prompts, files of prompts, JSON requests."""

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RequestError
from engine.request import GenerationRequest
from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle

__all__ = ["checked_order", "field_types", "read_bounded", "requests", "settings_from"]

MAX_FILE = 16 * 1024 * 1024  # bytes of a file of prompts or requests: 200,000 ordinary prompts
RANDOM_SEEDS = 2**32  # a fresh seed is one of so many: what torch's CPU generator can tell apart


def read_bounded(source: Path | str, what: str) -> str:
    """Read a text file, or standard input for `-`; raises UsageError when it cannot be one."""
    name = str(source)
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with Path(source).open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read from {name}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise UsageError(f"{what} is larger than {MAX_FILE} bytes", hint="split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not valid UTF-8") from None


def field_types() -> dict[str, tuple[type, ...]]:
    """Give the fields that an order may hold, by name, with the types that each may have.

    They are the request's own plain ones and `preset`; the engine checks the values.
    """
    plain = {str: (str,), int: (int,), float: (int, float)}
    found = {
        each.name: plain[each.type] for each in fields(GenerationRequest) if each.type in plain
    }
    return found | {"preset": (str,)}


def settings_from(source: Path | str) -> list[dict[str, Any]]:
    """Read JSON requests: one object, or one object a line."""
    text = read_bounded(source, "the request")
    decoder, position, found = json.JSONDecoder(), 0, []
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):  # ValueError: also a number of 5,000 digits
            number = text.count("\n", 0, position) + 1
            raise UsageError(f"the request on line {number} is not valid JSON") from None
        found.append(checked_order(value, f"request {len(found) + 1}"))
    if not found:
        raise UsageError("the request is empty", hint='for example {"prompt": "red apple"}')
    return found


def requests(
    bundle: "Bundle", orders: list[dict[str, Any]], given: Mapping[str, Any]
) -> Iterator[GenerationRequest]:
    """Yield one request an order; what the order leaves open comes from `given`, then from the
    preset that either names, then the bundle.

    A seed that nobody gave is drawn afresh for each request.
    """
    from engine.presets import EXACT, preset

    for number, order in enumerate(orders, 1):
        fields = {name: value for name, value in given.items() if value is not None} | order
        fields = preset(fields.pop("preset", EXACT), bundle.manifest, fields) | fields
        fields.setdefault("seed", secrets.randbelow(RANDOM_SEEDS))
        try:
            yield bundle.request(**fields)
        except RequestError as error:
            if len(orders) == 1:
                raise
            where = f"request {number} of {len(orders)}"
            raise RequestError(f"{where}: {error}", hint=error.hint) from error


def checked_order(value: object, where: str, *, names_only: bool = False) -> dict[str, Any]:
    """Check the fields of one order and their types, nested values included.

    where: what messages call it. names_only: the values are not there yet (a header). Raises
    UsageError, which never repeats a value.
    """
    types = field_types()
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a JSON object")
    for name, field in value.items():
        if name not in types:
            raise UsageError(
                f"{where} has an unknown field '{name}'", hint=f"allowed: {', '.join(types)}"
            )
        if names_only:
            continue
        if not isinstance(field, types[name]) or isinstance(field, bool):
            wanted = " or ".join(each.__name__ for each in types[name])
            raise UsageError(f"'{name}' in {where} must be {wanted}")
    if "prompt" not in value:
        raise UsageError(f"{where} has no prompt")
    return value
