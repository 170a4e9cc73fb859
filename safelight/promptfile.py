"""Files of prompts: text with a prompt a line, CSV with a header, JSON with a request a line."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safelight.exits import UsageError
from safelight.orders import checked_order, field_types, read_bounded

__all__ = ["FORMATS", "format_of", "orders_from"]

FORMATS = ("csv", "jsonl", "txt")


def format_of(source: Path | str, given: str | None) -> str:
    """Give the format of a file of prompts: what was given, else by suffix, else text.

    Raises UsageError for a name that is no format.
    """
    if given is None:
        suffix = Path(source).suffix.lower().removeprefix(".")
        return suffix if suffix in FORMATS else "txt"
    if given not in FORMATS:
        raise UsageError(
            f"unknown format of prompts '{given}'", hint=f"allowed: {', '.join(FORMATS)}"
        )
    return given


def orders_from(source: Path | str, given: str | None = None) -> list[dict[str, Any]]:
    """Read a file of prompts, or standard input for `-`: one order a line, blank lines are none.

    given: the format, one of FORMATS; None goes by the suffix. Raises UsageError that names the
    line, and never what it says, for the first one that is no request.
    """
    read = {"csv": _csv, "jsonl": _jsonl, "txt": _txt}[format_of(source, given)]
    orders = list(read(read_bounded(source, "the file of prompts")))
    if not orders:
        raise UsageError("the file of prompts holds no prompt", hint="one prompt a line")
    return orders


def _txt(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            yield {"prompt": line.strip()}


def _jsonl(text: str) -> Iterator[dict[str, Any]]:
    # Not splitlines: JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # ValueError: also a number of 5,000 digits
            raise UsageError(f"line {number} of the file of prompts is not valid JSON") from None
        yield checked_order(value, f"line {number}")


def _csv(text: str) -> Iterator[dict[str, Any]]:
    """Read RFC 4180 with a header of field names; an empty cell leaves its field open."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if not names:
                names = _header(row)
            elif len(row) != len(names):
                raise UsageError(
                    f"line {rows.line_num} of the file of prompts has {len(row)} cells; the header"
                    f" has {len(names)}",
                    hint='a cell with a comma is written in quotes: "red, round apple"',
                )
            else:
                yield _row(names, row, f"line {rows.line_num}")
    except csv.Error:
        raise UsageError(
            f"line {rows.line_num} of the file of prompts is not valid CSV",
            hint='a quote inside quotes is written twice: "the ""red"" apple"',
        ) from None


def _header(row: list[str]) -> list[str]:
    names = [cell.strip() for cell in row]
    if "prompt" not in names:
        raise UsageError(
            "the header of the file of prompts names no field 'prompt'",
            hint=f"the first line names the fields, of: {', '.join(field_types())}",
        )
    if len(set(names)) < len(names):
        raise UsageError("the header of the file of prompts names a field twice")
    checked_order({"prompt": ""} | dict.fromkeys(names, ""), "the header", names_only=True)
    return names


def _row(names: list[str], row: list[str], where: str) -> dict[str, Any]:
    """Give the cells their fields' types."""
    types = field_types()
    order: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        if not cell.strip():
            continue
        kinds = types[name]
        try:
            order[name] = cell.strip() if str in kinds else kinds[-1](cell)
        except ValueError:
            wanted = " or ".join(each.__name__ for each in kinds)
            raise UsageError(f"'{name}' in {where} must be {wanted}") from None
    return checked_order(order, where)
