"""What there is to look through: albums, tags, models, and the searches that a person keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.catalogue.query import QueryError, named
from safelight.gallery.bodies import read_form
from safelight.gallery.rendering import gallery_of, page, view_of
from safelight.searches import Searches

if TYPE_CHECKING:
    from safelight.catalogue import Catalogue, Row

__all__ = ["routes"]

COVERS = 4  # small pictures of an album
ALBUMS, TAGS, MODELS = 200, 300, 50  # shown at most


@dataclass(frozen=True, slots=True)
class Album:
    """A stretch of the gallery by its name: the search that shows it, how many, some of them."""

    name: str
    query: str
    count: int
    covers: "Sequence[Row]"


def albums(request: Request) -> Response:
    """Show albums and kept searches with covers, tags and models as words."""
    catalogue, vault = gallery_of(request).catalogue, gallery_of(request).vault
    searches = Searches(vault).all()
    return page(
        request,
        "albums.html",
        albums=[
            _album(catalogue, name, named("album", name))
            for name, _ in catalogue.facet("albums")[:ALBUMS]
        ],
        searches=[(each.id, _album(catalogue, each.name, each.query)) for each in searches],
        words={
            "Tags": _words(catalogue, "tags", "tag")[:TAGS],
            "Models": _words(catalogue, "model", "model")[:MODELS],
        },
    )


def kept(request: Request) -> Response:
    """Give the kept searches."""
    found = Searches(gallery_of(request).vault).all()
    return JSONResponse([{"id": s.id, "name": s.name, "query": s.query} for s in found])


async def keep(request: Request) -> Response:
    """Keep `query`, or what is looked for now, under `name`."""
    form = dict(await read_form(request))
    gallery = gallery_of(request)
    query = form.get("query", view_of(request).query)
    await run_in_threadpool(gallery.catalogue.count, query)  # refuses what cannot be understood
    await run_in_threadpool(Searches(gallery.vault).keep, form.get("name", ""), query)
    return JSONResponse({"text": f"Kept as {form.get('name', '').strip()}."})


async def remove(request: Request) -> Response:
    """Remove the kept search `id`."""
    record_id = dict(await read_form(request)).get("id", "")
    await run_in_threadpool(Searches(gallery_of(request).vault).remove, record_id)
    return JSONResponse({"text": "No longer kept."})


def _words(catalogue: "Catalogue", facet: str, field: str) -> list[tuple[str, str, int]]:
    """Return (name, the search for it, how many)."""
    return [(name, named(field, name), count) for name, count in catalogue.facet(facet)]


def _album(catalogue: "Catalogue", name: str, query: str) -> Album:
    try:
        return Album(name, query, catalogue.count(query), catalogue.window(query, 0, COVERS))
    except QueryError:  # kept by another version: still there to be removed
        return Album(name, query, 0, ())


routes: Sequence[BaseRoute] = (
    Route("/albums", albums),
    Route("/api/searches", kept),
    Route("/searches", keep, methods=["POST"]),
    Route("/searches/remove", remove, methods=["POST"]),
)
