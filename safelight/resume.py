"""A file of prompts that goes on where it stopped: which pictures of which line are sealed already.

A picture's sealed metadata says which line it is of (`line`): a mark of what the line asks for, the
picture's place among those of the line, and the line's seed. Nothing else is kept, and nothing in
the clear. A line that says, asks and draws with something else is another line.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import GenerationRequest
    from engine.inputs import Inputs
    from vault import Vault

__all__ = ["Done", "Line", "marks_of", "plan", "sealed_lines"]

LOOSE = frozenset({"count", "batch_size"})  # another one leaves a line the same line
BITS = 63  # of a mark; a whole number, so that no search for words meets it


@dataclass(frozen=True, slots=True)
class Line:
    """What a request is of: the line's mark, the place of the request's first picture, the line's
    seed.
    """

    mark: int
    first: int
    seed: int

    def metadata(self, picture: int) -> dict[str, Any]:
        """Give what is sealed with picture `picture` of the request, from 0."""
        return {"line": {"mark": self.mark, "index": self.first + picture, "seed": self.seed}}


@dataclass(frozen=True, slots=True)
class Done:
    """What is sealed of one line: its seed, and the places of its pictures."""

    seed: int
    places: frozenset[int]


def marks_of(
    orders: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    model_hash: str,
    inputs: "Inputs",
    beside: Sequence[Mapping[str, str]],
) -> list[int]:
    """Mark each line by what it asks for. Equal lines are told apart by their order in the file.

    given: the options beside the file. inputs: pictures that go in with every line. beside: of each
    line the bundles beside the model, name to hash; a line without any has the mark that it had
    before these were looked at.
    """
    pictures = hashlib.sha256()
    for pixels in (inputs.init, inputs.mask, *inputs.controls):
        pictures.update(f"{pixels.shape}".encode() + pixels.tobytes())
    options = {
        name: _plain(value)
        for name, value in given.items()
        if value is not None and name not in LOOSE
    }
    common = [options, model_hash, pictures.hexdigest()]
    seen: Counter[str] = Counter()
    marks: list[int] = []
    for order, bundles in zip(orders, beside, strict=True):
        fields = {name: value for name, value in order.items() if name not in LOOSE}
        asked = [fields, *common, *([dict(bundles)] if bundles else [])]
        text = json.dumps(asked, sort_keys=True)
        digest = hashlib.sha256(f"{seen[text]} {text}".encode()).digest()
        seen[text] += 1
        marks.append(int.from_bytes(digest[:8]) >> (64 - BITS))
    return marks


def sealed_lines(vault: "Vault") -> dict[int, Done]:
    """Find which lines have pictures in the vault, those in the trash not counted."""
    found: dict[int, tuple[int, set[int]]] = {}
    for record in vault.list():
        line = record.metadata.get("line")
        if isinstance(line, dict):
            _, places = found.setdefault(line["mark"], (line["seed"], set()))
            places.add(line["index"])
    return {mark: Done(seed, frozenset(places)) for mark, (seed, places) in found.items()}


def plan(
    requests: Sequence["GenerationRequest"], marks: Sequence[int], done: Mapping[int, Done]
) -> Iterator[tuple["GenerationRequest", Line]]:
    """Yield what is left to make: whole lines, and the single pictures that others lack.

    A line that was begun goes on with the seed that it had.
    """
    for request, mark in zip(requests, marks, strict=True):
        sealed = done.get(mark)
        if sealed is None:
            yield request, Line(mark, 0, request.seed)
            continue
        own = replace(request, seed=sealed.seed)
        for place in range(own.count):
            if place not in sealed.places:
                yield own.of_picture(place), Line(mark, place, own.seed)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
