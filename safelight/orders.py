"""What to generate, from the command line: prompts, files of prompts, JSON requests."""

import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle, GenerationRequest

__all__ = ["prompts_from", "read_bounded", "requests", "settings_from"]

MAX_FILE = 16 * 1024 * 1024  # bytes of a file of prompts or requests: 200,000 ordinary prompts
RANDOM_SEEDS = 2**32  # a fresh seed is one of so many: what torch's CPU generator can tell apart

# What a JSON request may hold, and of which type; the engine checks the values.
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "prompt": (str,),
    "negative_prompt": (str,),
    "width": (int,),
    "height": (int,),
    "steps": (int,),
    "sampler": (str,),
    "schedule": (str,),
    "guidance_scale": (int, float),
    "seed": (int,),
    "count": (int,),
    "eta": (int, float),
    "noise": (str,),
    "decoder": (str,),
    "refiner": (str,),
    "refiner_switch": (int, float),
    "upscaler": (str,),
    "prompt_syntax": (str,),
    "clip_skip": (int,),
    "guidance_start": (int, float),
    "guidance_end": (int, float),
    "reuse_every": (int,),
    "preset": (str,),
}


def read_bounded(source: Path | str, what: str) -> str:
    """Read a text file, or standard input for `-`; raises UsageError when it cannot be one."""
    name = str(source)
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with Path(source).open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{what} cannot be read from {name}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise UsageError(f"{what} is larger than {MAX_FILE} bytes", hint="split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not valid UTF-8") from None


def prompts_from(source: Path | str) -> list[str]:
    """Read prompts, one a line; blank lines are passed over."""
    prompts = [line.strip() for line in read_bounded(source, "the file of prompts").splitlines()]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise UsageError("the file of prompts holds no prompt", hint="one prompt a line")
    return prompts


def settings_from(source: Path | str) -> list[dict[str, Any]]:
    """Read JSON requests: one object, or one object a line."""
    text = read_bounded(source, "the request")
    decoder, position, found = json.JSONDecoder(), 0, []
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError):
            number = text.count("\n", 0, position) + 1
            raise UsageError(f"the request on line {number} is not valid JSON") from None
        found.append(_checked(value, len(found) + 1))
    if not found:
        raise UsageError("the request is empty", hint='for example {"prompt": "red apple"}')
    return found


def requests(
    bundle: "Bundle", orders: list[dict[str, Any]], given: Mapping[str, Any]
) -> Iterator["GenerationRequest"]:
    """Yield one request an order; what the order leaves open comes from `given`, then from the
    preset that either names, then the bundle.

    A seed that nobody gave is drawn afresh for each request.
    """
    from engine.presets import EXACT, preset

    for order in orders:
        fields = {name: value for name, value in given.items() if value is not None} | order
        fields = preset(fields.pop("preset", EXACT), bundle.manifest, fields) | fields
        fields.setdefault("seed", secrets.randbelow(RANDOM_SEEDS))
        yield bundle.request(**fields)


def _checked(value: object, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"request {number} is not a JSON object")
    for name, field in value.items():
        if name not in _FIELDS:
            raise UsageError(
                f"request {number} has an unknown field '{name}'",
                hint=f"allowed: {', '.join(_FIELDS)}",
            )
        if not isinstance(field, _FIELDS[name]) or isinstance(field, bool):
            wanted = " or ".join(each.__name__ for each in _FIELDS[name])
            raise UsageError(f"'{name}' in request {number} must be {wanted}")
    if "prompt" not in value:
        raise UsageError(f"request {number} has no prompt")
    return value
