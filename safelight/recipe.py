"""From a picture's record back to what made it: the request, the pictures that went in, the model.

This is the one place that reads stored settings. Records outlive versions: a setting that a record
does not know yet gets the value that meant the same when the record was written.
"""

import dataclasses
import io
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import ApplicationError, ExitStatus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine import GenerationRequest
    from engine.inputs import Inputs
    from vault import Record

__all__ = ["Recipe", "RecipeError", "decode_pixels", "read_inputs", "read_recipe", "read_request"]

# Fields whose default today means something else than their absence meant when there was no such
# field: prompts had no syntax, and a picture was decoded whole whatever its size.
MEANT_THEN: Final[Mapping[str, object]] = {"prompt_syntax": "plain", "vae_tiling": "off"}
PIXELS_LIMIT: Final = 1 << 28  # of one sealed picture; an upscaled one of 16384x16384 has as many
# Back ends whose records name a device by another word than `--device` does.
_DEVICES: Final[Mapping[str, str]] = {"CoreML": "coreml", "DirectML": "directml"}
# The same of back ends on NVIDIA's cards: the name for `--device`, but for the card's number.
_ON_CARDS: Final[Mapping[str, str]] = {
    "onnxruntime": "cuda:",
    "onnxruntime-tensorrt": "onnxruntime:TENSORRT.",
    "tensorrt": "tensorrt:",
    "torch": "torch:CUDA.",
}


class RecipeError(ApplicationError):
    """The record does not say how to make its picture again."""

    status = ExitStatus.USAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What made a picture. request: for this picture alone. inputs: pictures that went in.

    model, model_hash: the bundle's name and Bundle.hash. device, precision: as `--device` and
    `--precision` take them.
    """

    request: "GenerationRequest" = field(repr=False)
    inputs: "Inputs"
    model: str
    model_hash: str
    device: str
    precision: str


def read_recipe(record: "Record", read: Callable[[str], bytes | bytearray]) -> Recipe:
    """Read a picture's record. read: gives one of its blobs by name.

    Raises RecipeError for a record of another kind, or one whose settings cannot be understood.
    """
    metadata = record.metadata
    # what was enlarged or came from elsewhere has a size and no steps
    drawn = "steps" in metadata.get("settings", {}) and "imported" not in metadata
    if not drawn or "picture" not in record.blobs:
        raise RecipeError(
            f"record {record.id[:8]} is no picture that was drawn here",
            hint="`safelight ls` lists those that were",
        )
    return Recipe(
        request=read_request(metadata),
        inputs=read_inputs(record.blobs, read),
        model=str(metadata.get("model", "")),
        model_hash=str(metadata.get("model_hash", "")),
        device=_device(str(metadata.get("backend", "")), str(metadata.get("device", ""))),
        precision=str(metadata.get("precision", "auto")),
    )


def decode_pixels(data: bytes | bytearray, mode: str = "RGB") -> "NDArray[np.uint8]":
    """Decode a sealed PNG into uint8[H, W, 3], or uint8[H, W] for the mode `L`."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        width, height = image.size
        if width * height > PIXELS_LIMIT:
            raise RecipeError(f"a sealed picture has {width}x{height} pixels, too many to compare")
        return np.asarray(image.convert(mode), dtype=np.uint8).copy()


def read_request(metadata: Mapping[str, Any]) -> "GenerationRequest":
    """Read the request that a picture's, an attempt's or a waiting job's metadata holds.

    Raises RecipeError for settings that cannot be understood.
    """
    from engine import EngineError, GenerationRequest

    known = {each.name for each in dataclasses.fields(GenerationRequest)}
    settings = dict(metadata["settings"])
    unknown = sorted(set(settings) - known)
    if unknown:
        raise RecipeError(
            f"the record has a setting '{unknown[0][:40]}' that this version does not know",
            hint="it was made by a newer safelight",
        )
    fields = {name: value for name, value in MEANT_THEN.items() if name in known} | settings
    fields |= {name: metadata.get(name, "") for name in ("prompt", "negative_prompt")}
    hints = typing.get_type_hints(GenerationRequest)
    try:
        revived: dict[str, Any] = {k: _revive(hints[k], v) for k, v in fields.items()}
        return GenerationRequest(**revived)
    except EngineError as error:
        raise RecipeError(f"the record's settings are not acceptable here: {error}") from error
    except (TypeError, ValueError) as error:
        raise RecipeError("the record's settings have another form than this version's") from error


def _revive(kind: object, value: object) -> object:
    """Turn what JSON made of a field back: lists into tuples, objects into dataclasses."""
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_revive(inner, each) for each in value)
    if isinstance(value, dict) and isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _revive(hints.get(name), each) for name, each in value.items()})
    return value


def read_inputs(blobs: Mapping[str, Any], read: Callable[[str], bytes | bytearray]) -> "Inputs":
    """Open the pictures that went in: the blobs `init`, `mask`, `control-0` and on."""
    from engine.inputs import Inputs

    given: dict[str, Any] = {}
    if "init" in blobs:
        given["init"] = decode_pixels(read("init"))
    if "mask" in blobs:
        given["mask"] = decode_pixels(read("mask"), "L")
    controls = sum(name.startswith("control-") for name in blobs)
    if controls:
        given["controls"] = tuple(
            decode_pixels(read(f"control-{index}")) for index in range(controls)
        )
    return Inputs(**given)


def _device(backend: str, device: str) -> str:
    name, _, number = device.partition(":")
    if name in _DEVICES:
        return f"{_DEVICES[name]}:{number}" if number else _DEVICES[name]
    if name == "cuda" and backend in _ON_CARDS:
        return f"{_ON_CARDS[backend]}{number}"
    return f"{backend}:{device}"
