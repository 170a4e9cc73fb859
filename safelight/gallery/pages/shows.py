"""What the search finds as a contact sheet, and as a slide show."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.rendering import gallery_of, page, view_of

__all__ = ["routes"]

SHEET = 60  # pictures of one sheet


def sheet(request: Request) -> Response:
    """Show a sheet of small pictures with what made them; `number` counts from 1."""
    catalogue, query = gallery_of(request).catalogue, view_of(request).query
    text = request.query_params.get("number", "1")
    if not (text.isascii() and text.isdigit()) or not 0 < len(text) < 7 or int(text) < 1:
        raise UsageError("sheets are numbered from 1")
    number, count = int(text), catalogue.count(query)
    first = (number - 1) * SHEET
    return page(
        request,
        "sheet.html",
        rows=catalogue.window(query, first, SHEET),
        number=number,
        sheets=max(1, -(-count // SHEET)),
        first=first,
        count=count,
    )


def slides(request: Request) -> Response:
    """Show the slide show; its script asks for the windows of what the search finds."""
    catalogue, query = gallery_of(request).catalogue, view_of(request).query
    start = catalogue.place(query, request.query_params.get("from", ""))
    return page(request, "slides.html", query=query, start=start or 0, count=catalogue.count(query))


routes: Sequence[BaseRoute] = (Route("/sheet", sheet), Route("/slides", slides))
