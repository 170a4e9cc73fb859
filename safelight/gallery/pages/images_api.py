"""OpenAI's `/v1/images/generations` and `/v1/images/edits`, for programs that show the token."""

import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.gallery.bodies import read_json
from safelight.gallery.programs import images
from safelight.gallery.programs.faults import Endpoint, answering, object_of
from safelight.gallery.programs.maker import make, models_of, names_of, usual_model
from safelight.gallery.programs.multipart import parse_multipart
from safelight.gallery.rendering import gallery_of

__all__ = ["body_limits", "routes"]

EDIT_BYTES: Final = 96 << 20  # a picture and a mask
body_limits = {"/v1/images/edits": EDIT_BYTES, "/v1/images/generations": 1 << 20}


async def generations(request: Request) -> Response:
    """Make pictures of a prompt."""
    payload = object_of(await read_json(request))
    return await _made(request, payload, None)


async def edits(request: Request) -> Response:
    """Draw a picture anew, or what is transparent in its mask."""
    body = await request.body()
    kind = request.headers.get("content-type", "")
    payload, canvas = await run_in_threadpool(lambda: images.edit_from(parse_multipart(kind, body)))
    return await _made(request, payload, canvas)


async def models(request: Request) -> Response:
    """List the models on the shelf."""
    names = await run_in_threadpool(models_of, gallery_of(request))
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": "safelight"} for name in names
    ]
    return JSONResponse({"object": "list", "data": data})


async def _made(request: Request, payload: dict[str, Any], canvas: Any) -> Response:
    gallery = gallery_of(request)
    form = images.wanted_format(payload)
    names = await run_in_threadpool(names_of, gallery)
    order = images.order_from(payload, names, usual_model(gallery), canvas)
    made = await make(gallery, order)
    return JSONResponse(await run_in_threadpool(images.answer, made, form, int(time.time())))


def _fault(status: int, text: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": text, "type": kind, "param": None, "code": None}}


def _route(path: str, endpoint: Endpoint, method: str = "POST") -> Route:
    return Route(path, answering(_fault, endpoint), methods=[method])


routes: Sequence[BaseRoute] = (
    _route("/v1/images/generations", generations),
    _route("/v1/images/edits", edits),
    _route("/v1/models", models, "GET"),
)
