"""Label pictures, one or many at once, and take a change back.

`POST /label` takes `ids` (joined by commas) or `all=1`, `do` and `value`, and answers
`{"text": what happened, "undo": a name for POST /undo}`:

| do | value |
|---|---|
| tag, untag, album, unalbum | names, joined by commas |
| rate | 0 (none) to 5 |
| favourite | 1, 0, or nothing: the other of what the first picture is |
| note | the text |
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

body_limits = {"/label": BODY_BYTES}
NAMED = {"tags": "tags", "albums": "albums"}
SUGGESTED = 200  # names that are offered while one is typed


async def label(request: Request) -> Response:
    """Label what is chosen; all of it or, when something is wrong, none."""
    form = dict(await read_form(request))
    ids = await chosen(request, form)
    do, value = form.get("do", ""), form.get("value", "")
    return JSONResponse(await run_in_threadpool(_label, gallery_of(request), ids, do, value))


async def undo(request: Request) -> Response:
    """Take a change back."""
    gallery = gallery_of(request)
    token = dict(await read_form(request)).get("undo", "")
    await run_in_threadpool(gallery.undo.take_back, token)
    await run_in_threadpool(gallery.catalogue.refresh)
    return JSONResponse({"text": "Undone."})


def names(request: Request) -> Response:
    """Give the tags or albums that there are, with how many pictures have each."""
    facet = NAMED.get(request.path_params["facet"])
    if facet is None:
        raise UsageError(f"names are of {', '.join(NAMED)}")
    return JSONResponse(gallery_of(request).catalogue.facet(facet)[:SUGGESTED])


def pictures(number: int) -> str:
    """Say how many pictures."""
    return "1 picture" if number == 1 else f"{number:,} pictures"


def _label(gallery: "Gallery", ids: Sequence[str], do: str, value: str) -> dict[str, Any]:
    change, words = _change(gallery, ids[0], do, value)
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
        "text": f"{pictures(len(ids))}: {words}",
        "undo": gallery.undo.keep(back) if changed else "",
    }


def _putting(old: Mapping[str, Any]) -> Change:
    return lambda metadata: metadata | dict(old)


def _change(gallery: "Gallery", first: str, do: str, value: str) -> tuple[Change, str]:
    """Return a change and what it does in words. Raises UsageError."""
    listed = [name.strip() for name in value.split(",") if name.strip()]
    if do in ("tag", "untag", "album", "unalbum"):
        if not listed:
            raise UsageError("give at least one name")
        put, change = not do.startswith("un"), tagged if do.endswith("tag") else in_albums
        spoken = ", ".join(listed)
        if do.endswith("tag"):
            words = f"tagged {spoken}" if put else f"no longer tagged {spoken}"
        else:
            words = f"put into {spoken}" if put else f"taken out of {spoken}"
        return (change(add=listed) if put else change(remove=listed)), words
    if do == "rate":
        stars = int(value) if value.isascii() and value.isdigit() and len(value) == 1 else -1
        return rated(stars), "no rating" if not stars else f"rated {'★' * stars}"
    if do == "favourite":
        favourite = value == "1"
        if not value:
            favourite = not Labels.of(gallery.vault.get(first).metadata).favourite
        return favoured(favourite), "favourite" if favourite else "no longer favourite"
    if do == "note":
        return noted(value), "noted" if value.strip() else "note removed"
    raise UsageError("do: tag, untag, album, unalbum, rate, favourite or note")


routes: Sequence[BaseRoute] = (
    Route("/label", label, methods=["POST"]),
    Route("/undo", undo, methods=["POST"]),
    Route("/api/names/{facet}", names),
)
