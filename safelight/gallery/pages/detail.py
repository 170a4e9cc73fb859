"""One picture: large, with all that is known of it, its labels, where it came from, what left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from safelight.gallery.pages.pictures import media_type
from safelight.gallery.particulars import inputs_of, moment, particulars, shared
from safelight.gallery.rendering import gallery_of, page, view_of
from safelight.labels import Labels
from vault import BadValueError, NotFoundError

if TYPE_CHECKING:
    from safelight.catalogue import Catalogue, Row
    from vault import Record, Vault

__all__ = ["routes"]

GENERATIONS = 6  # of parents that are shown
CHILDREN = 60


def detail(request: Request) -> Response:
    """Show a picture. Scripts that walk through the pictures get the middle of the page alone."""
    gallery = gallery_of(request)
    record = _picture(gallery.vault, request.path_params["record_id"])
    view_of(request).place = record.id  # where the grid goes on
    part = "hx-request" in request.headers
    return page(
        request,
        "detail_part.html" if part else "detail.html",
        record=record,
        prompt=_text(record, "prompt"),
        negative=_text(record, "negative_prompt"),
        created=moment(record.created),
        labels=Labels.of(record.metadata),
        facts=particulars(record),
        inputs=list(inputs_of(record)),
        left=shared(record),
        bytes=sum(blob.length for blob in record.blobs.values()),
        drawn="steps" in (record.metadata.get("settings") or {}),
        **_walk(gallery.catalogue, view_of(request).query, record.id),
        **_family(gallery.catalogue, record),
    )


def given(request: Request) -> Response:
    """Give a picture that went in: init, mask or control."""
    vault = gallery_of(request).vault
    record = _picture(vault, request.path_params["record_id"])
    name = request.path_params["name"]
    if name not in dict(inputs_of(record)):
        raise NotFoundError("this picture was made without such a picture")
    data = bytes(vault.read(record.id, name))
    if not (kind := media_type(data[:12])):
        raise NotFoundError("this record has no picture that can be shown")
    return Response(data, media_type=kind)


def _picture(vault: "Vault", record_id: str) -> "Record":
    from vault import Kind

    try:
        record = vault.get(record_id)
    except BadValueError:
        raise NotFoundError("there is no such picture") from None
    if record.kind is not Kind.PICTURE:
        raise NotFoundError("there is no such picture")
    return record


def _walk(catalogue: "Catalogue", query: str, record_id: str) -> dict[str, Any]:
    """Return the neighbours in what the search finds, and the place among how many."""
    place = catalogue.place(query, record_id)
    if place is None:
        return {"place": None, "count": 0, "before": None, "after": None}
    start = max(0, place - 1)
    around = catalogue.window(query, start, place - start + 2)
    at = place - start
    return {
        "place": place + 1,
        "count": catalogue.count(query),
        "before": around[at - 1].id if at else None,
        "after": around[at + 1].id if at + 1 < len(around) else None,
    }


def _family(catalogue: "Catalogue", record: "Record") -> dict[str, Any]:
    """Return parents, the farthest first, and children; gone: a parent is no longer here."""
    parents: list[Row] = []
    parent = str(record.metadata.get("parent") or "")
    seen = {record.id}
    gone = False
    while parent and parent not in seen and len(parents) < GENERATIONS:
        seen.add(parent)
        row = catalogue.row(parent)
        if row is None:
            gone = True
            break
        parents.append(row)
        parent = catalogue.parent(parent)
    return {
        "parents": parents[::-1],
        "gone": gone,
        "children": catalogue.children(record.id)[:CHILDREN],
    }


def _text(record: "Record", name: str) -> str:
    value = record.metadata.get(name)
    return value if isinstance(value, str) else ""


routes: Sequence[BaseRoute] = (
    Route("/detail/{record_id}", detail),
    Route("/input/{record_id}/{name}", given),
)
