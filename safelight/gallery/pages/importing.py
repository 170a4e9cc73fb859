"""Bring pictures of other programs in: files that are dropped on a page, sealed one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.gallery.rendering import gallery_of, page
from safelight.gallery.transfer import transfer_of
from safelight.importing import Refused, Source, Taken
from safelight.importing.originals import REMAINS
from safelight.picturefile import MAX_BYTES

__all__ = ["body_limits", "routes"]

body_limits = {"/import/file": MAX_BYTES}
NAME_HEADER = "x-safelight-name"  # percent-encoded UTF-8
MODIFIED_HEADER = "x-safelight-modified"  # milliseconds since 1970
LATEST = 253_402_300_799_000  # milliseconds: the end of the year 9999


def importing(request: Request) -> Response:
    """Show the page that takes files."""
    return page(request, "importing.html", remains=REMAINS, most=MAX_BYTES)


async def file(request: Request) -> Response:
    """Take one file, whose bytes are the body: read in memory, sealed, opened and compared."""
    source = Source(
        name=unquote(request.headers.get(NAME_HEADER, ""))[-500:] or "a file",
        modified=_moment(request.headers.get(MODIFIED_HEADER, "")),
        data=await request.body(),
    )
    transfer = transfer_of(gallery_of(request))
    outcome = await run_in_threadpool(transfer.take_in, source)
    said: dict[str, Any]
    if isinstance(outcome, Refused):
        said = {"outcome": "refused", "reason": outcome.reason}
    elif isinstance(outcome, Taken):
        said = {"outcome": "taken", "id": outcome.record_id, "program": outcome.program}
    else:
        said = {"outcome": "duplicate", "id": outcome.record_id}
    return JSONResponse(said)


def _moment(text: str) -> str:
    """Give the time of a file's last change as a record has it, or nothing."""
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) > LATEST:
        return ""
    return datetime.fromtimestamp(int(text) / 1000, UTC).isoformat(timespec="seconds")


routes: Sequence[BaseRoute] = (
    Route("/import", importing),
    Route("/import/file", file, methods=["POST"]),
)
