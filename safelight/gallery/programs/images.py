"""OpenAI's image requests in our words, and our answers in theirs."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import ApplicationError, ExitStatus, UsageError
from safelight.picturefile import decode_picture
from safelight.workshop import Order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safelight.canvas import Canvas
    from safelight.gallery.programs.maker import Made
    from safelight.gallery.programs.multipart import Part

__all__ = ["NoModelError", "answer", "edit_from", "order_from", "wanted_format"]

Payload = Mapping[str, Any]
# Names that clients send because they must send one; they get the usual model.
_THEIR_MODELS: Final = re.compile(r"(dall-e|gpt-image|chatgpt-image)[a-z0-9.-]{0,40}")
FORMATS: Final = ("png", "jpeg", "webp")
STRENGTH: Final = 0.75  # of an edit without a mask
# Ours, for whoever knows them: OpenAI's client sends such fields as `extra_body`.
_EXTRA: Final = (
    "negative_prompt",
    "seed",
    "steps",
    "guidance_scale",
    "sampler",
    "schedule",
    "strength",
)


class NoModelError(ApplicationError):
    """The model that a program named is not on the shelf."""

    status = ExitStatus.NOT_FOUND


def order_from(
    payload: Payload, models: Sequence[str], usual: str, canvas: "Canvas | None" = None
) -> Order:
    """Read a generation, or an edit of `canvas`. models: on the shelf; usual: where none is named.

    Raises UsageError, NoModelError.
    """
    prompt = payload.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("'prompt' is missing")
    for name in ("stream", "partial_images"):
        if payload.get(name):
            raise UsageError(f"'{name}' is not supported here")
    if payload.get("response_format") not in {None, "b64_json"}:
        raise UsageError("pictures leave as b64_json; there is no address to fetch them from")
    fields: dict[str, Any] = {"prompt": prompt, "count": _count(payload.get("n"))}
    fields |= _size(payload.get("size"))
    fields |= {name: payload[name] for name in _EXTRA if payload.get(name) is not None}
    if canvas is not None and canvas.mask is None:
        fields.setdefault("strength", STRENGTH)
    if canvas is not None and canvas.mask is not None:
        fields.setdefault("strength", 1.0)
    return Order(model=_model(payload.get("model"), models, usual), fields=fields, canvas=canvas)


def edit_from(parts: "Sequence[Part]") -> "tuple[dict[str, Any], Canvas]":
    """Read an edit's form: its fields, and the picture with what shall be painted.

    What is transparent in the mask, or without one in the picture, is painted anew.
    """
    from safelight.canvas import Canvas

    pictures = [part.data for part in parts if part.name in {"image", "image[]"}]
    masks = [part.data for part in parts if part.name == "mask"]
    if len(pictures) != 1 or len(masks) > 1:
        raise UsageError("an edit takes one 'image', and one 'mask' at most")
    init = decode_picture(pictures[0], "the image")
    area = _holes(masks[0] if masks else pictures[0], "the mask" if masks else "the image")
    if area.shape != init.shape[:2]:
        raise UsageError("image and mask must have the same size")
    if masks and not area.any():
        raise UsageError("nothing in the mask is transparent, so nothing would be painted")
    known = {"image", "image[]", "mask"}
    fields: dict[str, Any] = {part.name: part.text for part in parts if part.name not in known}
    fields = {name: _number(text) if name in _NUMBERS else text for name, text in fields.items()}
    return fields, Canvas(init, area if area.any() else None, "")


_NUMBERS: Final = ("n", "seed", "steps", "guidance_scale", "strength")


def wanted_format(payload: Payload) -> str:
    """Give the file format that is asked for. Raises UsageError."""
    form = payload.get("output_format") or "png"
    if form not in FORMATS:
        raise UsageError("output_format is png, jpeg or webp")
    return form


def answer(made: "Sequence[Made]", form: str, created: int) -> dict[str, Any]:
    """Give the answer to both. created: seconds since 1970."""
    return {
        "created": created,
        "output_format": form,
        "data": [{"b64_json": base64.b64encode(_encoded(each, form)).decode()} for each in made],
    }


def _encoded(made: "Made", form: str) -> bytes:
    if form == "png":
        return made.png
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(decode_picture(made.png, "the picture")).save(buffer, form, quality=92)
    return buffer.getvalue()


def _holes(data: bytes, what: str) -> "NDArray[np.uint8]":
    """Give 255 where a picture is transparent, else 0: uint8[H, W]."""
    import numpy as np
    from PIL import Image

    decode_picture(data, what)  # which looks at its size
    with Image.open(io.BytesIO(data)) as image:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return np.where(alpha < 128, 255, 0).astype(np.uint8)


def _count(value: Any) -> int:
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("'n' is a number from 1")
    return value


def _size(value: Any) -> dict[str, int]:
    if value is None or (isinstance(value, str) and value in {"auto", ""}):
        return {}
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value) if isinstance(value, str) else None
    if not found:
        raise UsageError("'size' is WIDTHxHEIGHT or auto")
    return {"width": int(found[1]), "height": int(found[2])}


def _model(name: Any, models: Sequence[str], usual: str) -> str:
    if name is None or name == "":
        return usual
    if isinstance(name, str) and name in models:
        return name
    if isinstance(name, str) and _THEIR_MODELS.fullmatch(name):
        return usual
    raise NoModelError("there is no such model", hint=f"one of: {', '.join(models)}")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text[:30])
        except ValueError:
            continue
    return text
