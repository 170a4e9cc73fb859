"""The studio's form: texts as a page sends them, and the request's fields that they mean."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError
from safelight.orders import field_types

if TYPE_CHECKING:
    from engine import GenerationRequest
    from safelight.kit import Style

__all__ = [
    "ENLARGE_STRENGTH",
    "WAYS",
    "field_of",
    "fields_from",
    "prefilled",
    "with_styles",
]

WAYS: Final = ("again", "same", "remix", "variations", "upscale")
MAX_FIELDS: Final = 64
VARIATION: Final = 0.25  # of the noise: another picture of the same composition
REMIX: Final = 0.6  # strength: shapes stay, the rest follows the words
ENLARGE: Final = 2  # times as large, where no upscaler is on the shelf
ENLARGE_STRENGTH: Final = 0.35  # adds detail and keeps the picture
VARIATIONS: Final = 4  # pictures
_WORDS: Final = re.compile(r"[a-z_]+")
# How messages call what the form calls otherwise.
_CALLED: Final = {
    "negative": "negative_prompt",
    "mask": "init",
    "picture": "init",
    "init": "init",
    "decoder": "decoder",
    "word": "prompt",
    "wildcards": "prompt",
    "model": "model",
    "sampler": "sampler",
    "schedule": "schedule",
    "preset": "preset",
    "upscaler": "upscaler",
    "hires": "hires_scale",
    "prompt": "prompt",
}


def fields_from(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read a form: known fields in their types, empty ones left out for the bundle to fill.

    given: texts or numbers by name; names that no request has are passed over. Raises UsageError
    that says which field and not what it holds.
    """
    if len(given) > MAX_FIELDS:
        raise UsageError(f"the form has more than {MAX_FIELDS} fields")
    types = field_types()
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in types or value is None or value == "":
            continue
        found[name] = _typed(name, value, types[name])
    found.setdefault("prompt", "")
    return found


def with_styles(fields: Mapping[str, Any], styles: "list[Style]") -> dict[str, Any]:
    """Put the words of styles around both prompts, in their order."""
    prompt, negative = str(fields["prompt"]), str(fields.get("negative_prompt", ""))
    for style in styles:
        prompt, negative = style.around(prompt, negative)
    return dict(fields) | {"prompt": prompt, "negative_prompt": negative}


def _fields_of(request: "GenerationRequest", template: str = "") -> dict[str, Any]:
    """Give the form's fields for a request that was made before. template: as it was typed."""
    found = {name: getattr(request, name) for name in field_types() if hasattr(request, name)}
    return found | {"prompt": template} if template else found


def prefilled(
    request: "GenerationRequest", way: str, seed: int, template: str = ""
) -> dict[str, Any]:
    """Give the form's fields to go on from a picture in a way of WAYS. seed: a fresh one.

    again: with another seed. same: with all that it had. remix: begins with the picture.
    variations: near the picture's own noise. upscale: drawn over once more, larger. Raises
    UsageError for another way.
    """
    fields = _fields_of(request, template) | {"count": 1}
    if way == "same":
        # The seed chose the wildcards' words: it is they that are kept, and not the template.
        return fields | {"prompt": request.prompt}
    if way == "again":
        return fields | {"seed": ""}
    if way == "remix":
        return fields | {"seed": "", "strength": REMIX, "hires_scale": 1.0}
    if way == "variations":
        return fields | {
            "prompt": request.prompt,
            "count": VARIATIONS,
            "variation_seed": seed,
            "variation_strength": VARIATION,
        }
    if way == "upscale":
        width, height = request.final_size
        return fields | {
            "prompt": request.prompt,
            "width": ENLARGE * width,
            "height": ENLARGE * height,
            "strength": ENLARGE_STRENGTH,
            "hires_scale": 1.0,
            "upscaler": "",
        }
    raise UsageError("there is no such way on from a picture", hint=f"one of: {', '.join(WAYS)}")


def field_of(message: str) -> str:
    """Find which field of the form a message is about: the first word that names one, or ''."""
    for word in _WORDS.findall(message):
        if word in field_types():
            return word
        if word in _CALLED:
            return _CALLED[word]
    return ""


def _typed(name: str, value: object, kinds: tuple[type, ...]) -> Any:
    """Give a value the type that its field has."""
    kind = kinds[-1]
    if isinstance(value, str) and kind is str:
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or kind is str:
        raise UsageError(f"{name} has a value of another kind")
    try:
        found = kind(value.strip() if isinstance(value, str) else value)
    except (ValueError, OverflowError):  # no number, or one that is none or endless
        found = None
    if found is None or (isinstance(value, float) and found != value and kind is int):
        raise UsageError(f"{name} must be {'a whole number' if kind is int else 'a number'}")
    return found
