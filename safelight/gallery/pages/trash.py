"""The trash: what is hidden, for how long, or shredded; and what shredding leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.rendering import gallery_of, page
from safelight.gallery.selection import BODY_BYTES, id_list

if TYPE_CHECKING:
    from safelight.catalogue import Row
    from safelight.gallery.gallery import Gallery

__all__ = ["body_limits", "routes"]

body_limits = {"/purge": BODY_BYTES}
TRASHED = "is:trashed"
AT_ONCE = 120  # tiles before the next part is fetched
DAY = 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture in the trash and how long it stays there, in words."""

    row: "Row"
    left: str


def trash_page(request: Request) -> Response:
    """Show what is in the trash."""
    gallery = gallery_of(request)
    return page(
        request,
        "trash.html",
        count=gallery.catalogue.count(TRASHED),
        others=_others(gallery),
        days=gallery.vault.retention.trash_days,
        loading=not gallery.catalogue.loading.finished,
        waiting="" if gallery.expiring is None else gallery.expiring.waiting,
        **_part(gallery, 0),
    )


def more(request: Request) -> Response:
    """Give the tiles from place `start` on."""
    start = request.query_params.get("start", "")
    if not (start.isascii() and start.isdigit()) or len(start) > 9:
        raise UsageError("start is a number")
    return page(request, "trash_tiles.html", **_part(gallery_of(request), int(start)))


async def restore_all(request: Request) -> Response:
    """Take everything out of the trash, failed runs and the like too."""
    gallery = gallery_of(request)
    restored = await run_in_threadpool(_empty_out, gallery)
    return JSONResponse({"done": restored, "text": f"{restored} back from the trash", "undo": ""})


async def ask_purge(request: Request) -> Response:
    """Show what shredding would do and what it cannot reach, before it is done."""
    ids = id_list(dict(await read_form(request)).get("ids", ""))
    return await run_in_threadpool(_asked, request, ids)


async def purge(request: Request) -> Response:
    """Shred what is in the trash, or of it the named pictures, and show the receipt."""
    form = dict(await read_form(request))
    ids = id_list(form.get("ids", ""))
    retire = True if form.get("retire") == "1" else None
    gallery = gallery_of(request)
    receipt = await run_in_threadpool(_shred, gallery, ids, retire)
    return page(request, "receipt.html", receipt=receipt)


def _part(gallery: "Gallery", start: int) -> dict[str, Any]:
    rows = gallery.catalogue.window(TRASHED, start, AT_ONCE)
    days, now = gallery.vault.retention.trash_days, datetime.now(UTC)
    return {
        "tiles": [Tile(row, _left(row.trashed or "", days, now)) for row in rows],
        "next": start + AT_ONCE if len(rows) == AT_ONCE else None,
    }


def _left(trashed: str, days: float | None, now: datetime) -> str:
    """Say how long a picture stays that came into the trash at that moment."""
    if days is None:
        return "until it is shredded"
    left = days - (now - datetime.fromisoformat(trashed)).total_seconds() / DAY
    if left <= 0:
        return "about to go"
    return "1 day left" if left <= 1 else f"{int(left) + (left % 1 > 0)} days left"


def _others(gallery: "Gallery") -> int:
    """Count what else lies in the trash: failed runs and the like, up to a thousand."""
    from vault import Kind

    kinds = [kind for kind in Kind if kind < 128 and kind is not Kind.PICTURE]
    return sum(1 for _ in gallery.vault.list(kinds=kinds, trashed=True, limit=1000))


def _empty_out(gallery: "Gallery") -> int:
    from vault import Kind

    kinds = [kind for kind in Kind if kind < 128]
    ids = [record.id for record in gallery.vault.list(kinds=kinds, trashed=True)]
    gallery.vault.untrash(ids)
    gallery.catalogue.refresh()
    return len(ids)


def _asked(request: Request, ids: list[str]) -> Response:
    gallery = gallery_of(request)
    status = gallery.vault.status()
    types, stores = {slot.type for slot in status.slots}, {"keyring", "both"}
    return page(
        request,
        "purge.html",
        ids=ids,
        count=len(ids) or status.trashed,
        phrase="phrase" in types,
        passphrase="passphrase" in types,
        keyring=status.keystore,
        # Opened otherwise than by the key store: another copy of the vault may hang on its key.
        may_retire=bool(types & stores) and status.opened_by not in stores,
    )


def _shred(gallery: "Gallery", ids: list[str], retire: bool | None) -> Any:
    vault = gallery.vault
    if ids:
        inside = [each for each in ids if vault.get(each).trashed is not None]
        if len(inside) < len(ids):
            raise UsageError("only what is in the trash is shredded here")
    receipt = vault.purge(ids or None, retire=retire)
    gallery.undo.forget()  # what was taken out of the trash meanwhile may be gone
    gallery.catalogue.refresh()
    return receipt


routes: Sequence[BaseRoute] = (
    Route("/trash", trash_page),
    Route("/trash/more", more),
    Route("/trash/restore-all", restore_all, methods=["POST"]),
    Route("/purge/ask", ask_purge, methods=["POST"]),
    Route("/purge", purge, methods=["POST"]),
)
