"""AUTOMATIC1111's requests in our words, and our answers in theirs (web interface 1.10, /docs)."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError
from safelight.infotext import write_infotext
from safelight.picturefile import MAX_BYTES, decode_picture
from safelight.samplernames import A1111_SAMPLERS, known_sampler, known_schedule
from safelight.workshop import Order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safelight.canvas import Canvas
    from safelight.gallery.programs.maker import Made

__all__ = ["answer", "order_from", "picture_from", "progress_answer"]

Payload = Mapping[str, Any]
# Their field -> ours, and its kind; -1 leaves a seed open.
_FIELDS: Final[Mapping[str, tuple[str, type]]] = {
    "prompt": ("prompt", str),
    "negative_prompt": ("negative_prompt", str),
    "width": ("width", int),
    "height": ("height", int),
    "steps": ("steps", int),
    "cfg_scale": ("guidance_scale", float),
    "seed": ("seed", int),
}
# What would change the picture and is not done here: refused, not passed over.
_REFUSED: Final = ("script_name", "alwayson_scripts", "styles", "restore_faces", "tiling")
_MASK_KEY: Final = "mask"
BLUR: Final = 4  # pixels; their default


def order_from(payload: Payload, model: str) -> Order:
    """Read txt2img, or img2img where there are `init_images`. model: unless the payload names one.

    Raises UsageError.
    """
    for name in _REFUSED:
        if payload.get(name):
            raise UsageError(f"'{name}' is not supported here", hint="leave it out")
    settings = payload.get("override_settings") or {}
    if not isinstance(settings, dict):
        raise UsageError("override_settings is a JSON object")
    fields = _fields(payload)
    if "CLIP_stop_at_last_layers" in settings:
        fields["clip_skip"] = _value(settings, "CLIP_stop_at_last_layers", int)
    canvas = _canvas(payload, fields) if payload.get("init_images") else None
    if canvas is not None:
        fields |= _given(payload, "denoising_strength", "strength", float)
        fields["mask_blur"] = _given(payload, "mask_blur", "blur", int).get("blur", BLUR)
    elif payload.get("enable_hr"):
        fields |= _second_pass(payload)
    chosen = settings.get("sd_model_checkpoint") or model
    if not isinstance(chosen, str):
        raise UsageError("sd_model_checkpoint is a name")
    return Order(model=chosen, fields=fields, canvas=canvas)


def answer(made: "Sequence[Made]", payload: Payload) -> dict[str, Any]:
    """Give the answer to txt2img and img2img."""
    texts = [write_infotext(each.record.metadata) for each in made]
    all_settings = [each.record.metadata["settings"] for each in made]
    first = made[0].record.metadata if made else {"settings": {}}
    settings = first["settings"]
    info = {
        "prompt": first.get("prompt", ""),
        "all_prompts": [each.record.metadata["prompt"] for each in made],
        "negative_prompt": first.get("negative_prompt", ""),
        "all_negative_prompts": [each.record.metadata["negative_prompt"] for each in made],
        "seed": settings.get("seed", -1),
        "all_seeds": [each["seed"] for each in all_settings],
        "subseed": settings.get("variation_seed", -1),
        "all_subseeds": [each.get("variation_seed", 0) for each in all_settings],
        "subseed_strength": settings.get("variation_strength", 0),
        "width": settings.get("width"),
        "height": settings.get("height"),
        "sampler_name": A1111_SAMPLERS.get(settings.get("sampler", ""), ""),
        "cfg_scale": settings.get("guidance_scale"),
        "steps": settings.get("steps"),
        "batch_size": len(made),
        "sd_model_name": first.get("model", ""),
        "sd_model_hash": first.get("model_hash", "")[:10],
        "clip_skip": settings.get("clip_skip", 1),
        "index_of_first_image": 0,
        "infotexts": texts,
    }
    images = [base64.b64encode(each.png).decode() for each in made]
    echoed = {name: value for name, value in payload.items() if name not in {"init_images", "mask"}}
    return {
        "images": images if payload.get("send_images", True) else [],
        "parameters": echoed,
        "info": json.dumps(info, ensure_ascii=False),
    }


def progress_answer(fraction: float, left: float | None, state: Payload) -> dict[str, Any]:
    """Give the answer to progress. fraction: 0 to 1. left: seconds, or None for unknown."""
    return {
        "progress": round(fraction, 4),
        "eta_relative": left or 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": "",
            "job_count": 0,
            "job_no": 0,
            "job_timestamp": "0",
            "sampling_step": 0,
            "sampling_steps": 0,
            **state,
        },
        "current_image": None,
        "textinfo": None,
    }


def picture_from(text: object, what: str) -> bytes:
    """Decode a picture that is sent as base64, with or without `data:...,` before it."""
    if not isinstance(text, str) or len(text) > MAX_BYTES * 4 // 3 + 1024:
        raise UsageError(f"{what} is a picture as base64 text of at most {MAX_BYTES} bytes")
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except binascii.Error:
        raise UsageError(f"{what} is no base64 text") from None


def _fields(payload: Payload) -> dict[str, Any]:
    fields: dict[str, Any] = {"prompt": ""}
    for theirs, (ours, kind) in _FIELDS.items():
        fields |= _given(payload, theirs, ours, kind)
    if fields.get("seed", 0) < 0:
        del fields["seed"]
    fields |= _given(payload, "batch_size", "batch_size", int)
    fields["count"] = fields.get("batch_size", 1) * _given(payload, "n_iter", "count", int).get(
        "count", 1
    )
    name = payload.get("sampler_name") or payload.get("sampler_index")
    if name:
        fields["sampler"], schedule = known_sampler(str(name))
        if schedule:
            fields["schedule"] = schedule
    schedule = str(payload.get("scheduler") or "automatic")
    if schedule.lower() != "automatic":
        fields["schedule"] = known_schedule(schedule)
    strength = _given(payload, "subseed_strength", "variation_strength", float)
    if strength.get("variation_strength"):
        fields |= strength
        seed = _given(payload, "subseed", "variation_seed", int)
        fields |= {name: value for name, value in seed.items() if value >= 0}
    return fields


def _second_pass(payload: Payload) -> dict[str, Any]:
    upscaler = str(payload.get("hr_upscaler") or "latent").lower()
    if not upscaler.startswith(("latent", "lanczos")):
        raise UsageError(
            f"the second pass has no upscaler '{upscaler[:40]}'", hint="Latent or Lanczos"
        )
    return {
        "hires_scale": _given(payload, "hr_scale", "x", float).get("x", 2.0),
        "hires_upscaler": "latent" if upscaler.startswith("latent") else "lanczos",
        **_given(payload, "denoising_strength", "hires_strength", float),
        **_given(payload, "hr_second_pass_steps", "hires_steps", int),
    }


def _given(payload: Payload, theirs: str, ours: str, kind: type) -> dict[str, Any]:
    """Give {ours: value} where the payload has a value, else nothing."""
    return {} if payload.get(theirs) is None else {ours: _value(payload, theirs, kind)}


def _value(payload: Payload, name: str, kind: type) -> Any:
    value = payload[name]
    if kind is str and isinstance(value, str):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and float(value).is_integer():
        return int(value)
    raise UsageError(f"'{name}' must be {kind.__name__}")


def _canvas(payload: Payload, fields: Mapping[str, Any]) -> "Canvas":
    """Read init picture and mask; both are stretched to the size asked for, as there."""
    import numpy as np

    from safelight.canvas import Canvas

    images = payload["init_images"]
    if not isinstance(images, list) or len(images) != 1:
        raise UsageError("init_images holds one picture here")
    what = "the init picture"
    init = decode_picture(picture_from(images[0], what), what)
    mask = None
    if payload.get(_MASK_KEY):
        what = "the mask"
        mask = decode_picture(picture_from(payload[_MASK_KEY], what), what)
        mask = np.asarray(mask.max(axis=2))
        if payload.get("inpainting_mask_invert"):
            mask = 255 - mask
    size = (fields.get("width") or init.shape[1], fields.get("height") or init.shape[0])
    init = _stretched(init, size)
    return Canvas(init, None if mask is None else _stretched(mask, size), "")


def _stretched(pixels: "NDArray[np.uint8]", size: tuple[int, int]) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    from engine.request import MAX_SIDE

    if not all(0 < side <= MAX_SIDE for side in size):
        raise UsageError(f"width and height are from 8 to {MAX_SIDE} pixels")
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
