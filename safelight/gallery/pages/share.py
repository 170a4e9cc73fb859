"""The share dialog: how pictures leave, exactly what leaves with them, and the download."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from safelight.disclose import disclose
from safelight.exits import UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.rendering import gallery_of, page
from safelight.gallery.transfer import Leaving, transfer_of
from safelight.sharing import FORMATS, Parcel, Share, pack, zip_stream
from vault import NotFoundError

if TYPE_CHECKING:
    from vault import Vault

__all__ = ["body_limits", "routes"]

MOST = 400  # pictures at once; their ids stand in the address, and addresses have a limit
ID_DIGITS = 32
# Profile -> what people read of it
PROFILES = {
    "strip": ("Pixels alone", "no text, no mark, nothing hidden"),
    "minimal": ("Marked as made by AI", "pixels, and IPTC's mark for generated pictures"),
    "a1111": ("Prompt and settings", "also the text that most programs read"),
    "full": ("Everything", "also every setting, as JSON"),
}
body_limits = {"/share/": 128 * 1024}


def share(request: Request) -> Response:
    """Show the dialog for the pictures of the address."""
    ids = _ids(request.path_params["ids"])
    vault = gallery_of(request).vault
    for record_id in ids:
        _require_picture(vault, record_id)
    return page(request, "share.html", ids=ids, profiles=PROFILES, formats=list(FORMATS))


async def preview(request: Request) -> Response:
    """Make one of the files as it would leave, and list all that is in it."""
    form = dict(await read_form(request))
    leaving = _leaving(form)
    place = _place(form, len(leaving.ids))
    parcel = await run_in_threadpool(_packed, gallery_of(request).vault, leaving, place)
    return page(
        request,
        "share_part.html",
        parcel=parcel,
        record_id=leaving.ids[place],
    )


async def ticket(request: Request) -> Response:
    """Give the address of a download; it works once, within a minute."""
    leaving = _leaving(dict(await read_form(request)))
    name = transfer_of(gallery_of(request)).ticket(leaving)
    return JSONResponse({"address": f"/share/file/{name}"})


def download(request: Request) -> Response:
    """Let the pictures go; each record notes that before its bytes leave."""
    gallery = gallery_of(request)
    leaving = transfer_of(gallery).redeem(request.path_params["ticket"])
    if leaving is None:
        raise NotFoundError("this download was used, or is too old", hint="share once more")
    vault = gallery.vault
    if len(leaving.ids) > 1:
        stream = zip_stream(vault, leaving.ids, leaving.share)
        return StreamingResponse(stream, media_type="application/zip", headers=_named("zip"))
    packed: list[Parcel] = []
    disclose(
        vault,
        next(iter(leaving.ids)),
        lambda record, data: packed.append(pack(record, data, leaving.share)),
        way="share",
    )
    parcel = packed.pop()
    return Response(parcel.data, media_type=parcel.media_type, headers=_named(parcel.suffix))


def _named(suffix: str) -> dict[str, str]:
    stem = "pictures" if suffix == "zip" else "picture"
    return {"content-disposition": f'attachment; filename="{stem}.{suffix}"'}


def _packed(vault: "Vault", leaving: Leaving, place: int) -> Parcel:
    record_id = leaving.ids[place]
    return pack(vault.get(record_id), vault.read(record_id, "picture"), leaving.share)


def _leaving(form: Mapping[str, str]) -> Leaving:
    words = tuple(line.strip() for line in form.get("redactions", "").splitlines() if line.strip())
    return Leaving(
        ids=_ids(form.get("ids", "")),
        share=Share(
            profile=form.get("profile", ""), format=form.get("format", ""), redactions=words
        ),
    )


def _ids(text: str) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(filter(None, text.split(","))))
    if not ids or any(len(each) != ID_DIGITS or not _is_hex(each) for each in ids):
        raise NotFoundError("there is no such picture")
    if len(ids) > MOST:
        raise UsageError(f"{len(ids)} pictures are chosen; at most {MOST} are shared at once")
    return ids


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def _place(form: Mapping[str, str], count: int) -> int:
    text = form.get("place", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 4 or int(text) >= count:
        raise UsageError("there is no picture at that place")
    return int(text)


def _require_picture(vault: "Vault", record_id: str) -> None:
    if "picture" not in vault.get(record_id).blobs:
        raise NotFoundError("this record has no picture")


routes: Sequence[BaseRoute] = (
    Route("/share/preview", preview, methods=["POST"]),
    Route("/share/ticket", ticket, methods=["POST"]),
    Route("/share/file/{ticket}", download),
    Route("/share/{ids}", share),
)
