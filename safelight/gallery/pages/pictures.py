"""The sealed pictures themselves, opened in memory for the browser that may see them."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from vault import BadValueError, NotFoundError

__all__ = ["media_type", "routes"]


async def thumbnail(request: Request) -> Response:
    """Give a picture's thumbnail."""
    return await _opened(request, "thumbnail")


async def picture(request: Request) -> Response:
    """Give a picture as it is sealed."""
    return await _opened(request, "picture")


def media_type(head: bytes) -> str:
    """Tell PNG, WebP or JPEG from a picture's first 12 bytes; empty for anything else.

    No browser is ever told what a file's own words say that it is.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if head.startswith(b"\xff\xd8\xff") else ""


async def _opened(request: Request, name: str) -> Response:
    try:
        data = await request.app.state.reader.read(request.path_params["record_id"], name)
    except BadValueError:  # no id at all: as unknown as any other
        raise NotFoundError("there is no such record") from None
    if not (kind := media_type(data[:12])):
        raise NotFoundError("this record has no picture that can be shown")
    return Response(data, media_type=kind)


routes: Sequence[BaseRoute] = (
    Route("/thumbnail/{record_id}", thumbnail),
    Route("/picture/{record_id}", picture),
)
