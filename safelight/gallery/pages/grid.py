"""The grid: what is found, by days, in windows for its script. Searches are never in an address."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.rendering import gallery_of, page, view_of

if TYPE_CHECKING:
    from safelight.catalogue import Catalogue, Row

__all__ = ["routes"]

MOST = 500  # rows of one window
LONGEST = 10  # digits of a number in a request


def grid(request: Request) -> Response:
    """Show the grid; its script asks for the windows that are looked at."""
    view, warnings = view_of(request), gallery_of(request).warnings
    return page(request, "grid.html", query=view.query, place=view.place, warnings=warnings)


async def search(request: Request) -> Response:
    """Look for `query` from now on; gives how many fit, their days, and how far the index is."""
    query = dict(await read_form(request)).get("query", "")
    catalogue = gallery_of(request).catalogue
    found = await run_in_threadpool(_overview, catalogue, query)
    view_of(request).query = query
    return JSONResponse(found)


async def window(request: Request) -> Response:
    """Give `count` rows of what `query` finds, from `start`."""
    form = dict(await read_form(request))
    start, count = _number(form, "start", 10**LONGEST - 1), _number(form, "count", MOST)
    catalogue = gallery_of(request).catalogue
    version = catalogue.version
    rows = await run_in_threadpool(catalogue.window, form.get("query", ""), start, count)
    return JSONResponse({"version": version, "rows": [_row(row) for row in rows]})


async def place(request: Request) -> Response:
    """Give the place of picture `id` in what `query` finds, or null."""
    form = dict(await read_form(request))
    catalogue = gallery_of(request).catalogue
    found = await run_in_threadpool(catalogue.place, form.get("query", ""), form.get("id", ""))
    return JSONResponse({"place": found})


async def here(request: Request) -> Response:
    """Remember the picture that is opened, so that the way back leads to it."""
    view_of(request).place = dict(await read_form(request)).get("id", "")[:32]
    return Response(status_code=204)


def version(request: Request) -> Response:
    """Say whether anything changed: what the open grid asks while nobody does anything."""
    catalogue = gallery_of(request).catalogue
    return JSONResponse({"version": catalogue.version, "loading": not catalogue.loading.finished})


async def blur(request: Request) -> Response:
    """Blur the pictures until they are pointed at (`on=1`), or no more."""
    view_of(request).blur = dict(await read_form(request)).get("on") == "1"
    return Response(status_code=204)


def _overview(catalogue: "Catalogue", query: str) -> dict[str, Any]:
    version, loading = catalogue.version, catalogue.loading
    return {
        "version": version,
        "count": catalogue.count(query),
        "days": [
            [each.day.isoformat(), each.first, each.count] for each in catalogue.groups(query)
        ],
        "loading": None if loading.finished else [loading.done, loading.total],
        "damaged": loading.damaged or loading.stopped != "",
    }


def _row(row: "Row") -> dict[str, Any]:
    return {
        "id": row.id,
        "created": row.created,
        "title": row.title,
        "width": row.width,
        "height": row.height,
        "rating": row.rating,
        "favourite": row.favourite,
        "flagged": row.flagged,
        "tags": row.tags,
    }


def _number(form: Mapping[str, str], name: str, most: int) -> int:
    text = form.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST or int(text) > most:
        raise UsageError(f"{name} is a number up to {most}")
    return int(text)


routes: Sequence[BaseRoute] = (
    Route("/", grid),
    Route("/api/search", search, methods=["POST"]),
    Route("/api/window", window, methods=["POST"]),
    Route("/api/place", place, methods=["POST"]),
    Route("/api/here", here, methods=["POST"]),
    Route("/api/version", version),
    Route("/api/blur", blur, methods=["POST"]),
)
