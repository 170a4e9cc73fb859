"""What goes with a model in `generate`: ControlNets with their pictures, a refiner, an upscaler."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.exits import UsageError
from safelight.picturefile import read_picture

if TYPE_CHECKING:
    from engine import Bundle, GenerationRequest
    from engine.control import Control
    from engine.inputs import Inputs
    from safelight.shelf import Shelf

__all__ = ["Steering", "hashes_beside", "open_beside", "read_controls"]

KEYS = ("scale", "start", "end")
FORM = "NAME=FILE[,scale=0..2][,start=0..1][,end=0..1]"


@dataclass(frozen=True)
class Steering:
    """What `--control` gave: the settings that go into requests, and the pictures beside them."""

    controls: "tuple[Control, ...]"
    inputs: "Inputs"


def read_controls(texts: Sequence[str]) -> Steering:
    """Read what `--control` was given, NAME=FILE[,scale=..,start=..,end=..] each.

    Raises UsageError for what cannot be read, RequestError for a value out of bounds, OSError for
    a file that cannot be opened.
    """
    from engine.inputs import Inputs

    found = [_parsed(text) for text in texts]
    pictures = [read_picture(file, f"the picture of '{each.model}'") for each, file in found]
    return Steering(
        controls=tuple(each for each, _ in found), inputs=Inputs(controls=tuple(pictures))
    )


def open_beside(shelf: "Shelf", requests: "Iterable[GenerationRequest]") -> "dict[str, Bundle]":
    """Open and verify every bundle that the requests name beside their model."""
    from engine.beside import names_beside

    names = dict.fromkeys(name for request in requests for name in names_beside(request))
    return {name: shelf.open(name) for name in names}


def hashes_beside(shelf: "Shelf", requests: "Sequence[GenerationRequest]") -> list[dict[str, str]]:
    """Give, of each request, the bundles that it names beside its model: name to hash."""
    from engine.beside import names_beside

    opened = open_beside(shelf, requests)
    return [{name: opened[name].hash for name in names_beside(each)} for each in requests]


def _parsed(text: str) -> "tuple[Control, Path]":
    from engine.control import Control

    name, equals, rest = text.partition("=")
    # From the right, since a file's name may hold commas: only known settings are cut off.
    values: dict[str, float] = {}
    while True:
        before, comma, last = rest.rpartition(",")
        key, sign, value = last.partition("=")
        if not comma or not sign or key.strip() not in KEYS:
            break
        if key.strip() in values:
            raise UsageError(f"--control '{name}' has {key.strip()} twice", hint=FORM)
        values[key.strip()] = _number(name, key.strip(), value)
        rest = before
    if not name or not equals or not rest:
        raise UsageError("--control needs a ControlNet and a picture", hint=FORM)
    return Control(model=name, **values), Path(rest)


def _number(name: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{key} of --control '{name}' is no number", hint=FORM) from None
