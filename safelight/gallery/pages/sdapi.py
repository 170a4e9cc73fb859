"""AUTOMATIC1111's `/sdapi/v1`, for programs that show the token: what its clients use most.

What is made here is sealed like everything else, and goes out by `disclose`, way `api`.
"""

from collections.abc import Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.gallery.bodies import read_json
from safelight.gallery.making import making_of
from safelight.gallery.programs import a1111
from safelight.gallery.programs.faults import Endpoint, answering, object_of
from safelight.gallery.programs.maker import make, models_of, usual_model
from safelight.gallery.rendering import gallery_of
from safelight.importing.texts import picture_texts
from safelight.infotext import split_infotext
from safelight.picturefile import decode_picture
from safelight.samplernames import A1111_SAMPLERS, A1111_SCHEDULES
from safelight.workshop import State

__all__ = ["body_limits", "routes"]

BODY_BYTES: Final = 96 << 20  # an init picture and a mask as base64
body_limits = {"/sdapi/": BODY_BYTES}
CLIP_SKIP: Final = "CLIP_stop_at_last_layers"


async def draw(request: Request) -> Response:
    """Make pictures: txt2img and img2img."""
    gallery = gallery_of(request)
    payload = object_of(await read_json(request))
    if request.url.path.endswith("img2img") and not payload.get("init_images"):
        raise HTTPException(404, "Init image not found")
    order = await run_in_threadpool(a1111.order_from, payload, usual_model(gallery))
    made = await make(gallery, order)
    return JSONResponse(await run_in_threadpool(a1111.answer, made, payload))


async def progress(request: Request) -> Response:
    """Say how far the picture in hand is, or of several the mean."""
    workshop = making_of(gallery_of(request)).workshop
    job = next((each for each in workshop.jobs if each.state is State.RUNNING), None)
    if job is None:
        return JSONResponse(a1111.progress_answer(0.0, None, {}))
    state = {
        "job": f"job {job.id[:8]}",
        "job_count": job.count,
        "job_no": job.done,
        "sampling_step": job.step // max(1, job.in_hand),
        "sampling_steps": job.steps // max(1, job.in_hand),
    }
    done = min(1.0, (job.done + job.begun) / job.count)
    # No preview goes along: what is not sealed yet cannot note that it left.
    return JSONResponse(a1111.progress_answer(done, workshop.seconds_left(), state))


async def interrupt(request: Request) -> Response:
    """End the job in hand; what is finished of it stays."""
    workshop = making_of(gallery_of(request)).workshop
    for job in workshop.jobs:
        if job.state is State.RUNNING:
            await run_in_threadpool(workshop.cancel, job.id)
    return JSONResponse({})


async def options(request: Request) -> Response:
    """Give the options that exist here: the model."""
    return JSONResponse({"sd_model_checkpoint": usual_model(gallery_of(request)), CLIP_SKIP: 1})


async def set_options(request: Request) -> Response:
    """Choose the model for calls that name none; other options are passed over, as there."""
    gallery = gallery_of(request)
    chosen = object_of(await read_json(request)).get("sd_model_checkpoint")
    if chosen is not None:
        if chosen not in await run_in_threadpool(models_of, gallery):
            raise HTTPException(400, "there is no such model")
        gallery.programs_model = chosen
    return JSONResponse(None)


async def models(request: Request) -> Response:
    """List the models on the shelf."""
    names = await run_in_threadpool(models_of, gallery_of(request))
    return JSONResponse([_model(name) for name in names])


async def samplers(_request: Request) -> Response:
    """List the samplers by their names there; ours are aliases."""
    found = [
        {"name": theirs, "aliases": [ours], "options": {}}
        for ours, theirs in A1111_SAMPLERS.items()
    ]
    return JSONResponse(found)


async def schedulers(_request: Request) -> Response:
    """List the schedules by their names there."""
    found: list[dict[str, Any]] = [{"name": "automatic", "label": "Automatic", "aliases": None}]
    found += (
        {"name": ours, "label": theirs, "aliases": None} for ours, theirs in A1111_SCHEDULES.items()
    )
    return JSONResponse(found)


async def upscalers(_request: Request) -> Response:
    """List what the second pass can enlarge with."""
    return JSONResponse([{"name": "Latent", "scale": 4}, {"name": "Lanczos", "scale": 4}])


async def png_info(request: Request) -> Response:
    """Read the words in a picture that is sent; it is not kept."""
    payload = object_of(await read_json(request))
    return JSONResponse(await run_in_threadpool(_words, payload.get("image")))


async def scripts(_request: Request) -> Response:
    """List scripts: there are none."""
    return JSONResponse({"txt2img": [], "img2img": []})


def _words(image: Any) -> dict[str, Any]:
    data = a1111.picture_from(image, "the image")
    decode_picture(data, "the image")
    kind = "image/png" if data[:4] == b"\x89PNG" else "image/jpeg"
    texts = picture_texts(data, kind)
    text = texts.get("parameters") or texts.get("UserComment", "")
    prompt, negative, fields = split_infotext(text)
    parameters = {"Prompt": prompt, "Negative prompt": negative, **fields} if text else {}
    return {"info": text, "items": texts, "parameters": parameters}


def _model(name: str) -> dict[str, Any]:
    return {
        "title": name,
        "model_name": name,
        "hash": None,
        "sha256": None,
        "filename": name,
        "config": None,
    }


def _fault(status: int, text: str) -> dict[str, Any]:
    return {"error": "Error", "detail": text, "body": "", "errors": text, "status": status}


def _route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    return Route(f"/sdapi/v1/{path}", answering(_fault, endpoint), methods=[method])


routes: Sequence[BaseRoute] = (
    _route("txt2img", draw, "POST"),
    _route("img2img", draw, "POST"),
    _route("progress", progress),
    _route("interrupt", interrupt, "POST"),
    _route("skip", interrupt, "POST"),
    _route("options", options),
    _route("options", set_options, "POST"),
    _route("samplers", samplers),
    _route("schedulers", schedulers),
    _route("upscalers", upscalers),
    _route("sd-models", models),
    _route("png-info", png_info, "POST"),
    _route("scripts", scripts),
)
