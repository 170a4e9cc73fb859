"""What the application keeps in a record's metadata, and the JSON lines that commands print."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from safelight import __version__

if TYPE_CHECKING:
    from engine import Bundle, Choice, GenerationRequest, Picture
    from vault import Record

__all__ = [
    "asked_metadata",
    "attempt_metadata",
    "generated_line",
    "listed_line",
    "peaks_in_mib",
    "picture_metadata",
    "refused_metadata",
    "shown_line",
    "upscaled_metadata",
]

_MIB: Final = 1 << 20
LONGEST = 1000  # characters of a refused setting; those that mean something are short
# What `peak_memory` counts (`engine.usage`), in words for people.
_COUNTED: Final[Mapping[str, str]] = {
    "rss": "of the process",
    "torch": "of torch",
    "vram": "of the card",
}
# Settings that `generate --json` prints flat beside the model (CONTRACT: JSON of `generate`).
_SETTINGS = ("seed", "width", "height", "steps", "sampler", "schedule", "guidance_scale", "decoder")


def picture_metadata(picture: "Picture") -> dict[str, Any]:
    """Give the sealed metadata of a finished picture: all that is needed to make it again."""
    return asked_metadata(picture.request, picture.model) | {
        "model_hash": picture.model_hash,
        "beside": dict(picture.beside),
        "backend": picture.backend,
        "device": picture.device,
        "precision": picture.precision,
        "reason": picture.reason,
        "libraries": dict(picture.libraries),
        "version": __version__,
        "repairs": list(picture.repairs),
        "flagged": picture.flagged,
        "tiles": picture.tiles,
        "seconds": _rounded(asdict(picture.seconds)),
        "peak_memory": asdict(picture.peak_memory),
        "tags": [],
        "rating": 0,
        "favourite": False,
        "disclosed": [],
    }


def attempt_metadata(request: "GenerationRequest", model: str, outcome: str) -> dict[str, Any]:
    """Give the sealed metadata of a run that ended without a picture.

    outcome: `cancelled`, or one sentence that says how it failed.
    """
    return asked_metadata(request, model) | {"outcome": outcome, "tags": []}


def refused_metadata(order: Mapping[str, Any], model: str, reason: str) -> dict[str, Any]:
    """Give the sealed metadata of a line that asked for what cannot be drawn.

    A record holds no number that is not finite, no half of a character and no text of any length:
    the first two are put in words, texts are cut, and the outcome says which.
    """
    from engine.request import MAX_PROMPT

    room: dict[str, int] = {"prompt": MAX_PROMPT, "negative_prompt": MAX_PROMPT}
    settings = {name: _plain(value, room.get(name, LONGEST)) for name, value in order.items()}
    cut = [
        f"; '{name}' is cut, it had {len(value)} characters"
        for name, value in order.items()
        if isinstance(value, str) and len(value) > room.get(name, LONGEST)
    ]
    return {
        "prompt": settings.pop("prompt"),
        "negative_prompt": settings.pop("negative_prompt", ""),
        "model": model,
        "settings": settings,
        "outcome": f"refused: {_plain(reason, LONGEST)}" + "".join(cut),
        "tags": [],
    }


def upscaled_metadata(
    bundle: "Bundle",
    choice: "Choice",
    size: tuple[int, ...],
    parent: tuple[str, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Give the sealed metadata of a picture that was enlarged from another one.

    size: (height, width) in pixels. parent: id and metadata of the record that it was made of,
    whose words it is found by; None for a file.
    """
    record_id, words = ("", {}) if parent is None else parent
    backend = choice.backend
    return {
        "prompt": words.get("prompt", ""),
        "negative_prompt": words.get("negative_prompt", ""),
        "model": bundle.name,
        "model_hash": bundle.hash,
        "parent": record_id,
        "settings": {"seed": None, "width": size[1], "height": size[0]},
        "backend": backend.name,
        "device": backend.device,
        "precision": backend.precision,
        "reason": choice.reason,
        "libraries": dict(backend.libraries),
        "flagged": words.get("flagged", False),
        "tags": list(words.get("tags", [])),
        "rating": 0,
        "favourite": False,
        "disclosed": [],
    }


def generated_line(
    record_id: str, metadata: Mapping[str, Any], seal_seconds: float
) -> dict[str, Any]:
    """Give the JSON object that `generate --json` prints for a picture (id '': incognito)."""
    seconds = dict(metadata["seconds"]) | {"seal": round(seal_seconds, 6)}
    seconds["total"] = round(sum(seconds.values()), 6)
    settings = metadata["settings"]
    return {
        "id": record_id,
        "model": metadata["model"],
        **{name: settings[name] for name in _SETTINGS},
        "backend": metadata["backend"],
        "device": metadata["device"],
        "precision": metadata["precision"],
        "flagged": metadata["flagged"],
        "seconds": seconds,
        "peak_memory": metadata["peak_memory"],
    }


def listed_line(record: "Record") -> dict[str, Any]:
    """Give the JSON object that `ls --json` prints for a record."""
    metadata = record.metadata
    settings = metadata.get("settings", {})
    return {
        "id": record.id,
        "created": record.created,
        "prompt": metadata.get("prompt", ""),
        "model": metadata.get("model", ""),
        "seed": settings.get("seed"),
        "width": settings.get("width"),
        "height": settings.get("height"),
        "tags": metadata.get("tags", []),
        "rating": metadata.get("rating", 0),
        "favourite": metadata.get("favourite", False),
    }


def shown_line(record: "Record") -> dict[str, Any]:
    """Give the JSON object that `show --json` prints: everything that the record holds."""
    return {
        "id": record.id,
        "kind": record.kind.name.lower(),
        "revision": record.revision,
        "created": record.created,
        "trashed": record.trashed,
        **record.metadata,
        "blobs": {
            name: {"media_type": blob.media_type, "bytes": blob.length}
            for name, blob in record.blobs.items()
        },
    }


def peaks_in_mib(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Say for people what a record holds of peaks of memory: stage -> `512 MiB of the process`.

    Empty for a record that holds none, as those of older versions do, or in another form.
    """
    peaks = metadata.get("peak_memory")
    if not isinstance(peaks, Mapping):
        return {}
    counted = _COUNTED.get(str(peaks.get("of", "")), "")
    return {
        stage: f"{round(value / _MIB)} MiB {counted}".rstrip()
        for stage, value in peaks.items()
        if isinstance(value, int) and value > 0
    }


def asked_metadata(request: "GenerationRequest", model: str) -> dict[str, Any]:
    """Give what a request asks for, as every record holds it; `recipe.read_request` reads it."""
    settings = asdict(request)
    return {
        "prompt": settings.pop("prompt"),
        "negative_prompt": settings.pop("negative_prompt"),
        "model": model,
        "settings": settings,
    }


def _plain(value: object, longest: int) -> object:
    if isinstance(value, str):
        return value[:longest].encode("utf-8", "backslashreplace").decode("utf-8")
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in seconds.items()}
