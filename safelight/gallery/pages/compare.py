"""Two to four pictures beside each other: slider, difference map, and which settings differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.difference import Figures, difference, figures
from safelight.gallery.particulars import particulars
from safelight.gallery.rendering import gallery_of, page
from safelight.gallery.selection import id_list
from safelight.pixels import PICTURE_TYPE, encode_picture
from safelight.recipe import decode_pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vault import Record, Vault

__all__ = ["routes"]

FEWEST, MOST = 2, 4


def compare(request: Request) -> Response:
    """Show the pictures of `ids`, joined by commas."""
    vault = gallery_of(request).vault
    ids = id_list(request.path_params["ids"])
    if not FEWEST <= len(ids) <= MOST:
        raise UsageError(f"compare {FEWEST} to {MOST} pictures; {len(ids)} are chosen")
    records = [vault.get(each) for each in ids]
    differing, alike = _settings(records)
    return page(
        request,
        "compare.html",
        records=records,
        differing=differing,
        alike=alike,
        figures=_figures(vault, records) if len(records) == FEWEST else None,
    )


def difference_map(request: Request) -> Response:
    """Give the map of how the two pictures of `ids` differ, as PNG."""
    vault = gallery_of(request).vault
    ids = id_list(request.path_params["ids"])
    if len(ids) != FEWEST:
        raise UsageError("a difference is between two pictures")
    first, second = (_pixels(vault, each) for each in ids)
    return Response(encode_picture(difference(first, second)), media_type=PICTURE_TYPE)


def _figures(vault: "Vault", records: "Sequence[Record]") -> Figures:
    first, second = (_pixels(vault, record.id) for record in records)
    return figures(first, second)


def _pixels(vault: "Vault", record_id: str) -> "NDArray[np.uint8]":
    return decode_pixels(vault.read(record_id, "picture"))


def _settings(
    records: "Sequence[Record]",
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """Return (title, a value for each picture) of what differs, and (title, value) of the rest."""
    tables = [{fact.title: fact.value for fact in particulars(record)} for record in records]
    for table, record in zip(tables, records, strict=True):
        table["Prompt"] = str(record.metadata.get("prompt", ""))
        table["Negative prompt"] = str(record.metadata.get("negative_prompt", ""))
    titles = ["Prompt", "Negative prompt", *dict.fromkeys(title for t in tables for title in t)]
    differing: list[tuple[str, list[str]]] = []
    alike: list[tuple[str, str]] = []
    for title in dict.fromkeys(titles):
        values = [table.get(title, "") for table in tables]
        if len(set(values)) > 1:
            differing.append((title, values))
        elif values[0]:
            alike.append((title, values[0]))
    return differing, alike


routes: Sequence[BaseRoute] = (
    Route("/compare/{ids}", compare),
    Route("/compare/{ids}/difference", difference_map),
)
