"""What a record says of its picture, in words for people: settings, history, what went in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safelight.records import peaks_in_mib

if TYPE_CHECKING:
    from vault import Record

__all__ = ["Fact", "inputs_of", "moment", "particulars", "shared"]

# Settings that people look for first, in this order, by the words that they know
FIRST = {
    "model": "Model",
    "size": "Size",
    "seed": "Seed",
    "steps": "Steps",
    "sampler": "Sampler",
    "schedule": "Schedule",
    "guidance_scale": "Guidance",
    "strength": "Strength",
}
LAST = {
    "backend": "Backend",
    "device": "Device",
    "precision": "Precision",
    "reason": "Chosen because",
    "model_hash": "Model hash",
    "version": "Version",
}
# Not shown among the settings: they stand elsewhere on the page, or say nothing to people
_ELSEWHERE = frozenset({"prompt", "negative_prompt", "width", "height", "count", "seed", "model"})
_OF_INIT = frozenset({"strength", "mask_blur"})  # without such a picture they did nothing
MAX_VALUE = 400  # characters of one value
_WAYS = {"reveal": "revealed to a file", "share": "shared", "zip": "in a zip", "api": "by the API"}


@dataclass(frozen=True, slots=True)
class Fact:
    """A setting by its name for people. name: as the record has it; more: shown on demand."""

    name: str
    title: str
    value: str
    more: bool = False


def particulars(record: "Record") -> list[Fact]:
    """Return what is known of how a picture was made, what people ask for first."""
    about = record.metadata
    settings = _dictionary(about.get("settings"))
    if "init" not in record.blobs:
        settings = {name: value for name, value in settings.items() if name not in _OF_INIT}
    width, height = settings.get("width"), settings.get("height")
    known = {
        "model": about.get("model"),
        "size": f"{width} × {height}" if width and height else None,
        **settings,
    }
    facts = [Fact(name, title, _spoken(known.get(name))) for name, title in FIRST.items()]
    rest = {name: value for name, value in settings.items() if name not in {*FIRST, *_ELSEWHERE}}
    facts += [Fact(name, _title(name), _spoken(value), more=True) for name, value in rest.items()]
    facts += [
        Fact(name, title, _spoken(about.get(name)), more=True) for name, title in LAST.items()
    ]
    facts += [
        Fact(f"seconds.{name}", f"Seconds: {name}", _spoken(value), more=True)
        for name, value in _dictionary(about.get("seconds")).items()
    ]
    facts += [
        Fact(f"peak_memory.{name}", f"Memory: {name}", value, more=True)
        for name, value in peaks_in_mib(about).items()
    ]
    repairs = about.get("repairs")
    if isinstance(repairs, list) and repairs:
        facts.append(Fact("repairs", "Repairs", _spoken(repairs), more=True))
    return [fact for fact in facts if fact.value]


def shared(record: "Record") -> list[str]:
    """Return when and how the picture left the vault, the newest first."""
    notes = record.metadata.get("disclosed")
    if not isinstance(notes, list):
        return []
    return [
        f"{moment(str(note.get('when', '')))}: {_WAYS.get(way, way)}"
        for note in reversed(notes)
        if isinstance(note, dict) and (way := str(note.get("way", "")))
    ]


def inputs_of(record: "Record") -> Iterator[tuple[str, str]]:
    """Yield (blob name, title) of the pictures that went in."""
    from vault import Kind

    for name, blob in record.blobs.items():
        if blob.kind is Kind.INPUT:
            title = {"init": "Begun with", "mask": "Mask"}.get(name)
            yield name, title or name.replace("control-", "ControlNet ")


def moment(text: str) -> str:
    """Return an ISO 8601 moment in this machine's zone, for people; nothing for no moment."""
    try:
        at = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    return f"{at.day} {at:%B %Y, %H:%M}"


def _spoken(value: Any) -> str:
    """Return a value as people write it; nothing for what is not set."""
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {spoken}" for k, v in value.items() if (spoken := _spoken(v)))
    if isinstance(value, list):
        return ", ".join(filter(None, map(_spoken, value)))
    return str(value)[:MAX_VALUE]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
