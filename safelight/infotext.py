"""The text that AUTOMATIC1111's web interface keeps in pictures, and that most programs read.

The prompt, `Negative prompt: ...`, and one last line `Steps: 20, Sampler: Euler a, ...`; a value
with a comma, a colon or a line end is a JSON string. There is no specification: this is what
pictures of the last years hold.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from safelight.samplernames import A1111_SAMPLERS, A1111_SCHEDULES, known_sampler, known_schedule

__all__ = ["read_infotext", "split_infotext", "write_infotext"]

NEGATIVE: Final = "Negative prompt:"
MAX_LINE: Final = 65_536  # characters of the last line; those of real pictures have a few hundred
FEWEST: Final = 3  # fields; a last line with fewer belongs to the prompt
_FIELD: Final = re.compile(r'\s{0,8}(\w[\w \-/]{0,60}):\s{0,8}("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
# Their field -> ours, and how its value is read.
_FIELDS: Final[Mapping[str, tuple[str, type]]] = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", int),
    "Clip skip": ("clip_skip", int),
    "Denoising strength": ("strength", float),
    "Eta": ("eta", float),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
    "Hires upscale": ("hires_scale", float),
    "Hires steps": ("hires_steps", int),
}


def write_infotext(metadata: Mapping[str, Any]) -> str:
    """Write a record's prompts and settings as that text."""
    settings = metadata.get("settings", {})
    sampler, schedule = settings.get("sampler", ""), settings.get("schedule", "")
    fields = {
        "Steps": settings.get("steps"),
        "Sampler": A1111_SAMPLERS.get(sampler, sampler),
        "Schedule type": A1111_SCHEDULES.get(schedule, schedule),
        "CFG scale": settings.get("guidance_scale"),
        "Seed": settings.get("seed"),
        "Size": f"{settings.get('width')}x{settings.get('height')}",
        "Model": metadata.get("model"),
    }
    if settings.get("clip_skip", 1) != 1:
        fields["Clip skip"] = settings["clip_skip"]
    if settings.get("hires_scale", 1.0) != 1.0:
        fields["Hires upscale"] = settings["hires_scale"]
    if settings.get("variation_strength", 0.0):
        fields["Variation seed"] = settings.get("variation_seed")
        fields["Variation seed strength"] = settings["variation_strength"]
    last = ", ".join(
        f"{name}: {_quoted(value)}" for name, value in fields.items() if value not in (None, "")
    )
    lines = [metadata.get("prompt", "")]
    if metadata.get("negative_prompt"):
        lines.append(f"{NEGATIVE} {metadata['negative_prompt']}")
    return "\n".join([*lines, last])


def split_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """Take the text apart: prompt, negative prompt, and the last line's fields as written."""
    body, _, last = text.strip().rpartition("\n")
    fields = _fields(last)
    if len(fields) < FEWEST:
        body, fields = text.strip(), {}
    prompt, mark, negative = body.partition(NEGATIVE)
    if mark and prompt and not prompt.endswith("\n"):  # said within the prompt, not by a line
        prompt, mark, negative = _by_line(body)
    return prompt.strip(), negative.strip(), fields


def read_infotext(text: str) -> dict[str, Any]:
    """Read the text into a record's `prompt`, `negative_prompt`, `model` and `settings`.

    Whatever it is, something comes out: text without fields is a prompt.
    """
    prompt, negative, fields = split_infotext(text)
    settings: dict[str, Any] = {}
    for theirs, (ours, kind) in _FIELDS.items():
        value = _number(fields.get(theirs, ""), kind)
        if value is not None:
            settings[ours] = value
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", fields.get("Size", ""))
    if size:
        settings["width"], settings["height"] = int(size[1]), int(size[2])
    if "Sampler" in fields:
        settings["sampler"], schedule = known_sampler(fields["Sampler"])
        if schedule:
            settings["schedule"] = schedule
    if fields.get("Schedule type", "Automatic") != "Automatic":
        settings["schedule"] = known_schedule(fields["Schedule type"])
    return {
        "prompt": prompt,
        "negative_prompt": negative,
        "model": fields.get("Model", ""),
        "settings": settings,
    }


def _by_line(body: str) -> tuple[str, str, str]:
    before, mark, after = body.partition("\n" + NEGATIVE)
    return before, mark, after


def _fields(line: str) -> dict[str, str]:
    if len(line) > MAX_LINE:
        return {}
    return {match[1].strip(): _unquoted(match[2].strip()) for match in _FIELD.finditer(line)}


def _quoted(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    special = any(sign in text for sign in ',:\n"') or text != text.strip()
    return json.dumps(text, ensure_ascii=False) if special else text


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text


def _number(text: str, kind: type) -> int | float | None:
    """Read a number as the settings hold it, or None."""
    if len(text) > 20:  # a seed has at most 19 digits
        return None
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN
