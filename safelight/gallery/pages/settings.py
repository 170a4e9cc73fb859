"""The vault, openly: what protects it, what lies where, when it was checked, what goes when."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.particulars import moment
from safelight.gallery.rendering import gallery_of, page
from safelight.hardening import swap_warning

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from vault import Retention

__all__ = ["routes"]

PROBLEMS = 100  # shown of a check
LONGEST = 12  # characters of a number


def settings(request: Request) -> Response:
    """Show what `safelight status` says, and what can be set."""
    gallery = gallery_of(request)
    status = gallery.vault.status()
    kinds = {kind.name.lower(): count for kind, count in status.records.items()}
    return page(
        request,
        "settings.html",
        vault=status,
        kinds=kinds,
        protection=_protection(gallery),
        backup=moment(status.backup or ""),
        verified=moment(status.verified or ""),
        warnings=[*filter(None, [swap_warning()]), *status.warnings],
        retention=gallery.vault.retention,
        idle_minutes=gallery.idle_seconds / 60,
    )


def files(request: Request) -> Response:
    """Show what lies on the disk and what each file gives away without a key."""
    return page(request, "files.html", entries=gallery_of(request).vault.care.inventory())


async def verify(request: Request) -> Response:
    """Check the whole vault; `deep=1`: open every file."""
    deep = dict(await read_form(request)).get("deep") == "1"
    care = gallery_of(request).vault.care
    report = await run_in_threadpool(care.verify, deep=deep)
    return page(
        request, "verified.html", report=report, problems=report.problems[:PROBLEMS], deep=deep
    )


async def retain(request: Request) -> Response:
    """Say what deletes itself: days in the trash, and limits on pictures; empty: none."""
    form = dict(await read_form(request))
    vault = gallery_of(request).vault
    retention = _retention(vault.retention, form)
    await run_in_threadpool(vault.set_retention, retention)
    return JSONResponse({"text": "Kept."})


def _retention(old: "Retention", form: Mapping[str, str]) -> "Retention":
    fields: dict[str, Any] = {
        "trash_days": _number(form, "trash_days", whole=False),
        "max_age_days": _number(form, "max_age_days", whole=False),
        "max_count": _number(form, "max_count", whole=True),
    }
    return replace(old, **fields)


def _number(form: Mapping[str, str], name: str, *, whole: bool) -> float | int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    digits = text if whole else text.replace(".", "", 1)
    if len(text) > LONGEST or not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"{name.replace('_', ' ')} is a number, or nothing for no limit")
    return int(text) if whole else float(text)


def _protection(gallery: "Gallery") -> str:
    from safelight.cli.status import protection

    summary = gallery.summary()
    return protection({slot.type for slot in summary.slots}, summary.keystore)


routes: Sequence[BaseRoute] = (
    Route("/settings", settings),
    Route("/settings/files", files),
    Route("/settings/verify", verify, methods=["POST"]),
    Route("/settings/retention", retain, methods=["POST"]),
)
