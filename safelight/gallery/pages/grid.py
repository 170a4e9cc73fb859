"""Look at the pictures: the grid, its windows for the script, and pictures opened in memory."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.rendering import gallery_of, page
from vault import NotFoundError

__all__ = ["routes"]

MOST = 500  # rows of one window
# What a browser may be told that a sealed file is; anything else is not shown
SHOWN = frozenset({"image/png", "image/webp", "image/jpeg"})


def grid(request: Request) -> Response:
    """Show the grid; its script asks for the windows that are looked at."""
    return page(request, "grid.html")


def window(request: Request) -> Response:
    """Give `count` rows of what `query` finds, newest first, from `start`."""
    ask = request.query_params
    start, count = _number(ask, "start", 0, 10**9), _number(ask, "count", 100, MOST)
    found = gallery_of(request).vault.list(limit=start + count)
    rows = [{"id": record.id, "created": record.created} for record in islice(found, start, None)]
    return JSONResponse({"rows": rows})


def thumbnail(request: Request) -> Response:
    """Give a picture's thumbnail, opened in memory."""
    return _opened(request, "thumbnail")


def picture(request: Request) -> Response:
    """Give a picture as it is sealed, opened in memory."""
    return _opened(request, "picture")


def _opened(request: Request, name: str) -> Response:
    vault = gallery_of(request).vault
    record_id = request.path_params["record_id"]
    data = vault.read(record_id, name)
    kind = _media_type(bytes(data[:12]))
    if kind not in SHOWN:
        raise NotFoundError("this record has no picture that can be shown")
    return Response(bytes(data), media_type=kind)


def _media_type(head: bytes) -> str:
    """Tell a picture's type from its first 12 bytes: the vault vouches for them, not for a name."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if head.startswith(b"\xff\xd8\xff") else ""


def _number(ask: Any, name: str, usual: int, most: int) -> int:
    text = ask.get(name, str(usual))
    if not text.isdigit() or len(text) > 9 or int(text) > most:
        raise UsageError(f"{name} is a number up to {most}")
    return int(text)


routes: Sequence[BaseRoute] = (
    Route("/", grid),
    Route("/api/window", window),
    Route("/thumbnail/{record_id}", thumbnail),
    Route("/picture/{record_id}", picture),
)
