"""The committed word lists: concepts, synonyms, held-out combinations; and the icons' tags.

A concept is an icon's name (`cat-face`); its noun is what a caption calls it (`cat face`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from export.errors import ExportError
from export.pocket.colours import TARGETS
from export.pocket.packages import read_member

__all__ = ["Vocabulary", "load_vocabulary", "noun", "read_tags", "stem"]

# A concept's colour word stands for itself: such icons are recoloured only under a plain noun.
_COLOUR_WORDS = frozenset(TARGETS) | {"black", "white", "brown", "grey", "light-blue"}
_TITLES = {"t-rex": "t-rex", "t-shirt": "t-shirt", "jack-o-lantern": "jack-o-lantern"}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What the captions are made of. `held_out` holds (colour, concept), never trained on."""

    concepts: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]]
    held_out: frozenset[tuple[str, str]]
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, concept: str) -> tuple[str, ...]:
        """List all that a concept is called, its own name first."""
        return (noun(concept), *self.synonyms.get(concept, ()))


def noun(concept: str) -> str:
    """Write a concept as words: `cat-face` is "cat face"; a few names keep their hyphens."""
    return _TITLES.get(concept, concept.replace("-", " "))


def stem(concept: str) -> str:
    """Name a concept without its own colour word, for recolouring: `red-apple` is "apple".

    Sets that exist in several colours already (hearts, circles, books) give "", as do animals
    whose name means one colour.
    """
    for word in _COLOUR_WORDS:
        rest = concept.removeprefix(f"{word}-")
        if rest != concept:
            return noun(rest) if concept == "red-apple" else ""
    return "" if concept in {"polar-bear", "blueberries", "tangerine"} else noun(concept)


def _lines(name: str) -> list[str]:
    text = resources.files("export.pocket").joinpath("words", name).read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def load_vocabulary(limit: int = 0) -> Vocabulary:
    """Read the lists and check them. `limit` keeps that many concepts, evenly chosen (0: all)."""
    every = tuple(_lines("concepts.txt"))
    chosen = every if not limit else every[:: max(1, len(every) // limit)][:limit]
    owners = {noun(concept): concept for concept in every}
    synonyms: dict[str, tuple[str, ...]] = {}
    for line in _lines("synonyms.txt"):
        concept, _, rest = line.partition(":")
        words = tuple(word.strip() for word in rest.split(","))
        for word in words:
            if not word or concept not in every or word in owners:
                raise ExportError(
                    f"synonym '{word}' of '{concept}' is empty, of no concept, or taken",
                    hint=f"it belongs to '{owners.get(word, 'none')}'",
                )
            owners[word] = concept
        synonyms[concept] = words
    pairs = [line.split(" ") for line in _lines("heldout.txt")]
    for pair in pairs:
        if len(pair) != 2 or pair[0] not in TARGETS or pair[1] not in every:
            raise ExportError(f"held-out combination {pair} is not 'colour concept'")
    held = frozenset((colour, concept) for colour, concept in pairs if concept in chosen)
    return Vocabulary(
        concepts=chosen,
        synonyms={c: synonyms[c] for c in chosen if c in synonyms},
        held_out=held,
    )


def read_tags(archive: Path, concepts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Read each concept's tags from emojibase: those that are not words of its own name."""
    rows = json.loads(read_member(archive, "en/data.json"))
    tags = {_key(row["label"]): row.get("tags", ()) for row in rows}
    found: dict[str, tuple[str, ...]] = {}
    for concept in concepts:
        own = set(noun(concept).split())
        found[concept] = tuple(t for t in tags.get(concept, ()) if t not in own and t.isascii())[:6]
    return found


def _key(label: str) -> str:
    """Spell an emojibase label as the icon set spells its names."""
    plain = label.lower().replace("’", "").replace("'", "").replace(":", "").replace(",", "")
    return "-".join(plain.replace(".", "").split())
