"""One spelling of a JSON value, so that hashes and signatures agree wherever they are made."""

import json
from typing import Any

__all__ = ["canonical"]


def canonical(value: Any) -> bytes:
    """Give the value as JSON: keys sorted, no spaces, numbers as Python writes them, UTF-8."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
