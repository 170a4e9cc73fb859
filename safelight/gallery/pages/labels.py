"""Label pictures, trash them and bring them back, one or many at once; and take a change back.

`POST /labels/WHAT` takes `ids` (joined by commas), or `all=1` for the `count` pictures that `query`
finds, and `value`; it answers `{"done": how many, "text": what happened, "undo": for POST
/labels/undo}`.

| what | value |
|---|---|
| tag, untag, album, unalbum | names, a line each |
| rating | 0 (none) to 5 |
| favourite | 1 or 0 |
| note | the text |
| trash, restore | |
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.rendering import gallery_of
from safelight.gallery.selection import BODY_BYTES, chosen
from safelight.labels import (
    Change,
    Labels,
    favoured,
    in_albums,
    labelled_line,
    noted,
    rated,
    tagged,
)

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery

__all__ = ["body_limits", "pictures", "routes"]

body_limits = {"/labels": BODY_BYTES}
FACETS = ("tags", "albums")
_NAMED = {
    "tag": "tagged",
    "untag": "no longer tagged",
    "album": "put into",
    "unalbum": "taken out of",
}
SUGGESTED = 200  # names that are offered while one is typed


async def label(request: Request) -> Response:
    """Label what is chosen; all of it or, when something is wrong, none."""
    form = dict(await read_form(request))
    ids = await chosen(request, form)
    what, value = request.path_params["what"], form.get("value", "")
    gallery = gallery_of(request)
    if what in ("trash", "restore"):
        return JSONResponse(await run_in_threadpool(_move, gallery, ids, what))
    return JSONResponse(await run_in_threadpool(_label, gallery, ids, what, value))


async def undo(request: Request) -> Response:
    """Take a change back."""
    gallery = gallery_of(request)
    token = dict(await read_form(request)).get("token", "")
    await run_in_threadpool(gallery.undo.take_back, token)
    await run_in_threadpool(gallery.catalogue.refresh)
    return JSONResponse({"text": "Undone."})


def names(request: Request) -> Response:
    """Give the tags or albums that there are, with how many pictures have each."""
    facet = request.path_params["facet"]
    if facet not in FACETS:
        raise UsageError(f"names are of {' and '.join(FACETS)}")
    return JSONResponse(gallery_of(request).catalogue.facet(facet)[:SUGGESTED])


def pictures(number: int) -> str:
    """Say how many pictures."""
    return "1 picture" if number == 1 else f"{number:,} pictures"


def _move(gallery: "Gallery", ids: Sequence[str], what: str) -> dict[str, Any]:
    vault, into = gallery.vault, what == "trash"
    forth, back = (vault.trash, vault.untrash) if into else (vault.untrash, vault.trash)
    forth(ids)
    gallery.catalogue.refresh()
    text = f"{pictures(len(ids))} {'in' if into else 'back from'} the trash"
    undo = gallery.undo.keep(lambda: back(ids))
    return {"done": len(ids), "text": text, "undo": undo}


def _label(gallery: "Gallery", ids: Sequence[str], what: str, value: str) -> dict[str, Any]:
    change, words = _change(what, value)
    before: dict[str, dict[str, Any]] = {}

    def remembered(record_id: str) -> Change:
        def run(metadata: dict[str, Any]) -> Mapping[str, Any]:
            old = labelled_line(Labels.of(metadata))
            changed = change(metadata)
            new = labelled_line(Labels.of(changed))
            before[record_id] = {name: old[name] for name in old if old[name] != new[name]}
            return changed if before[record_id] else metadata

        return run

    vault = gallery.vault
    vault.edit_all({record_id: remembered(record_id) for record_id in ids})
    changed = {record_id: old for record_id, old in before.items() if old}
    gallery.catalogue.refresh()

    def back() -> None:
        vault.edit_all({record_id: _putting(old) for record_id, old in changed.items()})

    return {
        "done": len(ids),
        "text": f"{pictures(len(ids))}: {words}",
        "undo": gallery.undo.keep(back) if changed else "",
    }


def _putting(old: Mapping[str, Any]) -> Change:
    return lambda metadata: metadata | dict(old)


def _change(what: str, value: str) -> tuple[Change, str]:
    """Return a change and what it does in words. Raises UsageError."""
    if what in ("tag", "untag", "album", "unalbum"):
        listed = [name.strip() for name in value.split("\n") if name.strip()]
        if not listed:
            raise UsageError("give at least one name")
        put, change = not what.startswith("un"), tagged if what.endswith("tag") else in_albums
        words = f"{_NAMED[what]} {', '.join(listed)}"
        return (change(add=listed) if put else change(remove=listed)), words
    if what == "rating":
        stars = int(value) if value.isascii() and value.isdigit() and len(value) == 1 else -1
        return rated(stars), f"rated {'★' * stars}" if stars else "no rating"
    if what == "favourite" and value in ("0", "1"):
        return favoured(value == "1"), "favourite" if value == "1" else "no longer favourite"
    if what == "note":
        return noted(value), "noted" if value.strip() else "note removed"
    raise UsageError("labels: tag, untag, album, unalbum, rating, favourite (1 or 0) and note")


routes: Sequence[BaseRoute] = (
    Route("/labels/undo", undo, methods=["POST"]),
    Route("/labels/{what}", label, methods=["POST"]),
    Route("/api/names/{facet}", names),
)
