"""Read JSON that strangers wrote into pictures, and take single values out of it."""

import json
import math
from typing import Any

__all__ = ["json_object", "number", "text_of"]

MAX_NUMBER = 2**63 - 1  # what a record's seed may be


def json_object(text: str | None) -> dict[str, Any] | None:
    """Give the object that a text holds, or None: no JSON, too deep, another value."""
    if not text or not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """Give a finite number of that kind from a number or a text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 20:
        return None
    try:
        found = kind(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and abs(found) <= MAX_NUMBER else None


def text_of(value: Any) -> str:
    """Give a text that can be sealed, or '' for any other value."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
