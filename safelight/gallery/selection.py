"""Which pictures a change is meant for: the ones that it names, or all that a search finds."""

from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from safelight.exits import UsageError
from safelight.gallery.rendering import gallery_of

__all__ = ["BODY_BYTES", "MOST", "chosen", "id_list"]

MOST = 10_000  # pictures that one change may touch
ID_DIGITS = 32
BODY_BYTES = 512 * 1024  # of a form that names so many
_HEX = frozenset("0123456789abcdef")


async def chosen(request: Request, form: Mapping[str, str]) -> list[str]:
    """Return the ids of `ids`, joined by commas, or with `all=1` of what `query` finds.

    The page names its own search and the `count` that it shows: the session's search may be of
    another tab. Raises UsageError for none, too many, or what is no id; HTTPException 409 where the
    search finds another number by now.
    """
    if form.get("all") == "1":
        ids = await _all_found(request, form)
    else:
        ids = id_list(form.get("ids", ""))
    if not ids:
        raise UsageError("no picture is chosen")
    if len(ids) > MOST:
        raise UsageError(f"more than {MOST} pictures are chosen; change them in parts")
    return ids


async def _all_found(request: Request, form: Mapping[str, str]) -> list[str]:
    query, count = form.get("query"), form.get("count")
    if query is None or count is None:
        raise UsageError(
            "all=1 says nothing of which search, and how many pictures it found",
            hint="send query and count along, or load the page anew",
        )
    catalogue = gallery_of(request).catalogue
    if not catalogue.loading.finished:
        raise UsageError("the vault is still being read: not all that fits is known yet")
    rows = await run_in_threadpool(catalogue.window, query, 0, MOST + 1)
    if len(rows) <= MOST and str(len(rows)) != count:
        raise HTTPException(409, "The pictures have changed since: look again. Nothing was done.")
    return [row.id for row in rows]


def id_list(text: str) -> list[str]:
    """Return ids that are joined by commas, each once. Raises UsageError for what is none."""
    ids = list(dict.fromkeys(filter(None, text.lower().split(","))))
    if any(len(each) != ID_DIGITS or set(each) - _HEX for each in ids):
        raise UsageError(f"an id has {ID_DIGITS} hex digits")
    return ids
