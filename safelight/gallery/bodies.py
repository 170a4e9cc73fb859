"""Read what a browser sends: bounded, in memory, never spooled to a file."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

__all__ = ["DEFAULT_LIMIT", "limit_for", "read_form", "read_json"]

DEFAULT_LIMIT = 64 * 1024  # bytes of a body where a page states nothing else
MAX_FIELDS = 200  # of a form


def limit_for(path: str, limits: Mapping[str, int]) -> int:
    """Return the most bytes that a body sent to `path` may have; the longest prefix decides."""
    fitting = [prefix for prefix in limits if path.startswith(prefix)]
    return limits[max(fitting, key=len)] if fitting else DEFAULT_LIMIT


async def read_form(request: Request) -> list[tuple[str, str]]:
    """Read a form sent as application/x-www-form-urlencoded: its fields in order.

    `dict(...)` of it where no name comes twice. Raises HTTPException 415, 413 or 400.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is sent as application/x-www-form-urlencoded")
    body = await request.body()
    try:
        return parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise HTTPException(400, f"this is no form of at most {MAX_FIELDS} fields") from None


async def read_json(request: Request) -> Any:
    """Read a JSON body. Raises HTTPException 415, 413 or 400; the message holds nothing of it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "this takes application/json")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, "this is no JSON") from None
