"""What a person keeps at hand in the studio: presets, styles, word lists."""

from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import UsageError
from safelight.gallery.bodies import read_json
from safelight.gallery.making import making_of
from safelight.gallery.rendering import gallery_of
from safelight.kit import Kit, Preset, Style, WordList, lines_of
from safelight.stylesfile import MAX_FILE, read_styles
from safelight.workshop.form import fields_from

__all__ = ["body_limits", "routes"]

body_limits = {"/studio/kit": 1 << 20, "/studio/kit/styles": MAX_FILE}


async def keep(request: Request) -> Response:
    """Seal a preset, a style or a word list under its name."""
    asked = await read_json(request)
    if not isinstance(asked, dict) or not isinstance(asked.get("name"), str):
        raise UsageError("this takes a JSON object with a name")
    thing = _thing(request.path_params["sort"], asked["name"].strip(), asked)
    await run_in_threadpool(lambda: _kit(request).keep([thing]))
    return Response(status_code=204)


async def take_styles(request: Request) -> Response:
    """Seal the styles of a styles.csv, sent as a raw body."""
    styles = read_styles(await request.body())
    kept = await run_in_threadpool(lambda: _kit(request).keep(styles))
    return JSONResponse({"kept": kept})


def remove(request: Request) -> Response:
    """Remove one of them."""
    _kit(request).remove(request.path_params["record_id"])
    return Response(status_code=204)


def _kit(request: Request) -> Kit:
    return making_of(gallery_of(request)).kit


def _thing(sort: str, name: str, asked: dict[str, Any]) -> Preset | Style | WordList:
    if sort == "preset":
        fields = asked.get("fields")
        return Preset(name=name, fields=fields_from(fields if isinstance(fields, dict) else {}))
    texts = {key: str(asked.get(key, "")) for key in ("prompt", "negative_prompt", "lines")}
    if sort == "style":
        return Style(name=name, prompt=texts["prompt"], negative_prompt=texts["negative_prompt"])
    if sort == "wordlist":
        return WordList(name=name, lines=tuple(lines_of(texts["lines"])))
    raise UsageError("kept are presets, styles and word lists")


routes: Sequence[BaseRoute] = (
    Route("/studio/kit/styles", take_styles, methods=["POST"]),
    Route("/studio/kit/remove/{record_id}", remove, methods=["POST"]),
    Route("/studio/kit/{sort}", keep, methods=["POST"]),
)
