"""The studio: the form that asks for pictures, and what goes with it."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EngineError, RequestError
from engine.request import SAMPLERS, SCHEDULES, UPSCALERS, VAE_TILINGS
from safelight.exits import ApplicationError, UsageError
from safelight.gallery.bodies import read_form, read_json
from safelight.gallery.making import Making, making_of
from safelight.gallery.rendering import gallery_of, page, view_of
from safelight.orders import RANDOM_SEEDS
from safelight.pixels import PICTURE_TYPE, encode_picture
from safelight.workshop.cards import Card, cards
from safelight.workshop.desk import MAX_UPLOAD
from safelight.workshop.form import ENLARGE_STRENGTH, field_of, fields_from, prefilled, with_styles
from safelight.workshop.order import Order
from safelight.workshop.tokens import count_tokens

if TYPE_CHECKING:
    from safelight.canvas import Canvas
    from vault import Record

__all__ = ["body_limits", "routes"]

body_limits = {
    "/studio/submit": 1 << 20,
    "/studio/tokens": 1 << 20,
    "/studio/lora": 1 << 16,
    "/studio/picture": MAX_UPLOAD,
}
MAX_NAME = 64
_OPTION = re.compile(r"--([a-z-]+)")
_ID = re.compile(r"[0-9a-f]{32}")


def studio(request: Request) -> Response:
    """Show the form: as it stood last, or to go on from a picture (`?from=ID&as=WAY`)."""
    making = making_of(gallery_of(request))
    known = list(cards(making.workshop.pipelines.shelf))
    ask = request.query_params
    filled = making.form
    if "from" in ask:
        filled = _from_record(making, known, ask["from"], ask.get("as", "same"))
    return page(
        request,
        "studio.html",
        cards=[asdict(card) for card in known if not card.scale],
        upscalers=[card.name for card in known if card.scale],
        filled=filled,
        samplers=SAMPLERS,
        schedules=SCHEDULES,
        hires_upscalers=UPSCALERS,
        vae_tilings=VAE_TILINGS,
        styles=making.kit.styles(),
        kept=making.kit.presets(),
        wordlists=making.kit.wordlists(),
        usual=gallery_of(request).settings["model"],
        loras=making.loras.names(),
        loras_folder=str(making.loras.folder),
    )


def way_on(request: Request) -> Response:
    """Give the form's content to go on from a picture, as JSON."""
    making = making_of(gallery_of(request))
    path = request.path_params
    known = list(cards(making.workshop.pipelines.shelf))
    return JSONResponse(_from_record(making, known, path["record_id"], path["way"]))


async def submit(request: Request) -> Response:
    """Put what the form asks for into the queue; a refusal says which field it is about."""
    making = await run_in_threadpool(making_of, gallery_of(request))
    asked = _object(await read_json(request))
    try:
        job = await run_in_threadpool(_submitted, making, asked)
    except (EngineError, ApplicationError) as error:
        return refused(error)
    return JSONResponse({"job": job.id, "count": job.count})


async def tokens(request: Request) -> Response:
    """Count the tokens of both prompts by the model's tokenizer, and keep the form in memory."""
    making = await run_in_threadpool(making_of, gallery_of(request))
    asked = _object(await read_json(request))
    try:
        counted = await run_in_threadpool(_counted, making, asked)
    except (EngineError, ApplicationError) as error:
        return refused(error)
    making.form = asked
    return JSONResponse(counted)


async def lay_down(request: Request) -> Response:
    """Take a picture to draw from, as a raw body; it stays in memory alone."""
    making = await run_in_threadpool(making_of, gallery_of(request))
    data = await request.body()
    try:
        name = await run_in_threadpool(making.desk.lay, data)
    except ApplicationError as error:
        return refused(error)
    height, width = making.desk.take(name).shape[:2]
    return JSONResponse({"name": name, "width": width, "height": height})


def laid_down(request: Request) -> Response:
    """Show a picture that was taken to draw from."""
    making = making_of(gallery_of(request))
    pixels = making.desk.take(request.path_params["name"])
    return Response(encode_picture(pixels), media_type=PICTURE_TYPE)


async def upscale(request: Request) -> Response:
    """Put a job into the queue that enlarges a sealed picture with an upscaler."""
    making = await run_in_threadpool(making_of, gallery_of(request))
    asked = _object(await read_json(request))
    record, upscaler = _text(asked, "record"), _text(asked, "upscaler")
    try:
        incognito = asked.get("incognito") is True
        submit_upscale = partial(making.workshop.submit_upscale, incognito=incognito)
        job = await run_in_threadpool(submit_upscale, record, upscaler)
    except (EngineError, ApplicationError) as error:
        return refused(error)
    return JSONResponse({"job": job.id, "count": job.count})


async def with_loras(request: Request) -> Response:
    """Add LoRAs to a bundle (`base`, `scales` by name), as a new one; gives its card as JSON."""
    from export import ExportError

    making = await run_in_threadpool(making_of, gallery_of(request))
    asked = _object(await read_json(request))
    base, scales = _text(asked, "base"), _object(asked.get("scales", {}))
    if not all(isinstance(each, int | float) for each in scales.values()):
        raise UsageError("the scale of a LoRA is a number")
    feed = making.workshop.feed

    def told(stage: str, done: float) -> None:
        feed.tell("lora", stage=stage, done=round(done, 3))

    try:
        name = await run_in_threadpool(making.loras.add, base, scales, told)
    except (EngineError, ApplicationError, ExportError) as error:
        return refused(error)
    known = cards(making.workshop.pipelines.shelf)
    return JSONResponse(asdict(next(card for card in known if card.name == name)))


async def incognito(request: Request) -> Response:
    """Remember whether what this browser makes is kept in memory alone (`on=1`) or sealed."""
    view_of(request).incognito = dict(await read_form(request)).get("on") == "1"
    return Response(status_code=204)


def unsealed(request: Request) -> Response:
    """Seal an incognito picture after all (`keep`), or forget it (`forget`)."""
    workshop = making_of(gallery_of(request)).workshop
    name, verb = request.path_params["name"], request.path_params["verb"]
    if verb == "keep":
        return JSONResponse({"id": workshop.keep(name)})
    if verb != "forget":
        raise HTTPException(404)
    workshop.forget(name)
    return JSONResponse({"id": ""})


def refused(error: Exception) -> Response:
    """Say why the form is not acceptable, and beside which of its fields to say so."""
    message = str(error).encode("utf-8", "replace").decode()  # it may quote half of a character
    hint = _OPTION.sub(lambda match: match[1].replace("-", " "), getattr(error, "hint", ""))
    body = {"message": message, "hint": hint, "field": field_of(message)}
    return JSONResponse(body, 422)


def _submitted(making: Making, asked: Mapping[str, Any]) -> Any:
    fields = fields_from(_object(asked.get("fields", {})))
    chosen = asked.get("styles", [])
    if not isinstance(chosen, list) or not all(isinstance(each, str) for each in chosen):
        raise UsageError("styles is a list of ids")
    if chosen:
        known = {style.id: style for style in making.kit.styles()}
        fields = with_styles(fields, [known[each] for each in chosen if each in known])
    if not str(fields["prompt"]).strip():
        raise RequestError("the prompt is empty", hint="say what to draw")
    lists = {each.name: each.lines for each in making.kit.wordlists()}
    order = Order(
        model=_text(asked, "model"),
        fields=fields,
        canvas=_canvas(making, asked),
        parent=_parent(making, asked),
        lists=lists,
        incognito=asked.get("incognito") is True,
    )
    return making.workshop.submit(order)


def _canvas(making: Making, asked: Mapping[str, Any]) -> "Canvas | None":
    from PIL import Image

    from safelight.canvas import Canvas, open_picture

    init, mask = _text(asked, "init"), _text(asked, "mask")
    if not init:
        return None
    parent = _parent(making, asked)
    if init == "record":
        pixels, _ = open_picture(parent, making.vault)
    else:
        pixels = making.desk.take(init)
    area = None
    if mask:
        import numpy as np

        area = np.asarray(Image.fromarray(making.desk.take(mask)).convert("L"))
        if area.shape != pixels.shape[:2]:
            raise UsageError("the mask is of another size than the picture", hint="paint it anew")
    return Canvas(pixels, area, parent)


def _parent(making: Making, asked: Mapping[str, Any]) -> str:
    parent = _text(asked, "parent")
    if not parent:
        return ""
    if not _ID.fullmatch(parent):
        raise UsageError("the picture to begin with is named by its record's id")
    return making.vault.get(parent).id


def _counted(making: Making, asked: Mapping[str, Any]) -> dict[str, Any]:
    tokenizers = making.workshop.pipelines.tokenizers(_text(asked, "model"))
    fields = fields_from(_object(asked.get("fields", {})))
    steps = min(max(int(fields.get("steps", 20)), 1), 1000)
    syntax = "plain" if fields.get("prompt_syntax") == "plain" else "a1111"
    found: dict[str, Any] = {}
    for name, joins in (("prompt", True), ("negative_prompt", False)):
        text = str(fields.get(name, ""))
        found[name] = asdict(count_tokens(text, tokenizers, steps, syntax, joins=joins))
    return found


def _from_record(making: Making, known: Sequence[Card], record_id: str, way: str) -> dict[str, Any]:
    """Fill the form for going on from a picture."""
    from safelight.recipe import RecipeError, read_request

    record = making.vault.get(making.vault.resolve(record_id))
    models = {card.name for card in known if not card.scale}
    found: dict[str, Any] = {"parent": "", "init": "", "from": record.id, "way": way}
    try:
        request = read_request(record.metadata)
    except RecipeError:  # imported, or enlarged: it can be begun with, but not be made again
        found |= {"fields": _words(record, way), "parent": record.id, "init": "record"}
        return found | {"note": "This picture was not drawn here: its settings are not known."}
    model = str(record.metadata.get("model", ""))
    template = str(record.metadata.get("template", ""))
    fields = prefilled(request, way, secrets.randbelow(RANDOM_SEEDS), template)
    if way in {"remix", "upscale"} or "init" in record.blobs:
        found |= {"parent": record.id, "init": "record"}
        if way not in {"remix", "upscale"}:
            found |= _begun_with(making, record.id, record.blobs)
    if way == "variations":
        found["parent"] = record.id
    if model not in models:
        found["note"] = f"The model “{model}” that drew it is not on the shelf."
        model = ""
    return found | {"fields": fields, "model": model}


def _words(record: "Record", way: str) -> dict[str, Any]:
    """Give what is known of a picture that was not drawn here."""
    found = {name: str(record.metadata.get(name, "")) for name in ("prompt", "negative_prompt")}
    return found | ({"strength": ENLARGE_STRENGTH} if way == "upscale" else {})


def _begun_with(making: Making, record_id: str, blobs: Mapping[str, Any]) -> dict[str, Any]:
    """Lay down what a picture was itself begun with."""
    found: dict[str, Any] = {"parent": making.vault.get(record_id).metadata.get("parent", "")}
    for name in ("init", "mask"):
        if name in blobs:
            found[name] = making.desk.lay(bytes(making.vault.read(record_id, name)))
    return found


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError("this takes a JSON object")
    return value


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name) or ""
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise UsageError(f"{name} is a short text")
    return value


routes: Sequence[BaseRoute] = (
    Route("/studio", studio),
    Route("/studio/from/{record_id}/{way}", way_on),
    Route("/studio/submit", submit, methods=["POST"]),
    Route("/studio/tokens", tokens, methods=["POST"]),
    Route("/studio/picture", lay_down, methods=["POST"]),
    Route("/studio/picture/{name}", laid_down),
    Route("/studio/upscale", upscale, methods=["POST"]),
    Route("/studio/lora", with_loras, methods=["POST"]),
    Route("/studio/incognito", incognito, methods=["POST"]),
    Route("/studio/unsealed/{name}/{verb}", unsealed, methods=["POST"]),
)
