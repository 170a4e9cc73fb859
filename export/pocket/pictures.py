"""Stage `data`: draws every picture once, and lists what each of them shows.

`pictures.safetensors` holds premultiplied RGBA uint8[N, size, size, 4]; `pictures.json` names
rows. A row's `role` says who may see it: `concept` and `recoloured` are trained on by all,
`other` by the VAE alone, `held-out` and `unseen` by nothing: they are the examination.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.pocket import checkpoint
from export.pocket.colours import TARGETS, dominant, hue_distance, name_colour, recolour
from export.pocket.icons import IconSet, rasterise
from export.pocket.packages import fetch, pinned
from export.pocket.settings import Settings
from export.pocket.words import Vocabulary, load_vocabulary, read_tags, stem

__all__ = ["Picture", "Shelf", "build", "open_shelf"]

# An icon takes a colour if that much of its area has one hue.
_SHARE = 0.40
_COLOURS_EACH = 5


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What one row shows. `colour`: a recoloured icon's; `own`: an original's, if it has a name."""

    concept: str
    role: str
    colour: str = ""
    own: str = ""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """All pictures and the vocabulary they are described with. rgba is uint8[N, S, S, 4]."""

    rgba: np.ndarray
    rows: tuple[Picture, ...]
    vocabulary: Vocabulary

    def where(self, *roles: str) -> list[int]:
        """List the rows of some roles."""
        return [i for i, row in enumerate(self.rows) if row.role in roles]


def _unpremultiply(rgba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha = rgba[..., 3].astype(np.float32) / 255.0
    safe = np.maximum(alpha, 1e-6)[..., None]
    return np.clip(rgba[..., :3].astype(np.float32) / 255.0 / safe, 0.0, 1.0), alpha


def _repaint(rgba: np.ndarray, colour: str) -> np.ndarray:
    rgb, alpha = _unpremultiply(rgba)
    painted = recolour(rgb, alpha, colour) * alpha[..., None]
    out = np.concatenate([painted * 255.0, rgba[..., 3:].astype(np.float32)], axis=-1)
    return np.rint(out).astype(np.uint8)


def _concept_rows(
    rgba: np.ndarray, concept: str, words: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, Picture]]:
    """Yield an icon and its recoloured versions; held-out ones under their own role."""
    share, lightness, chroma, hue = dominant(*_unpremultiply(rgba))
    own = name_colour(lightness, chroma, hue) if share >= _SHARE else ""
    yield rgba, Picture(concept=concept, role="concept", own=own)
    if share < _SHARE or not stem(concept):
        return
    held = [colour for colour in TARGETS if (colour, concept) in words.held_out]
    far = [c for c in TARGETS if c != own and c not in held and stem(concept) != "apple"]
    if stem(concept) == "apple":  # green and red apples are icons of their own
        far = [c for c in TARGETS if c not in {"red", "green"}]
    far = [c for c in far if hue_distance(TARGETS[c][2], hue) > 20.0]
    chosen = rng.permutation(len(far))[:_COLOURS_EACH]
    for colour in sorted(far[int(k)] for k in chosen):
        yield _repaint(rgba, colour), Picture(concept=concept, role="recoloured", colour=colour)
    for colour in held:
        yield _repaint(rgba, colour), Picture(concept=concept, role="held-out", colour=colour)


def build(work: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Draw all pictures and write them. Seconds to a minute; repeats exactly."""
    pins = pinned()
    archives = {role: fetch(package, work / "npm") for role, package in pins.items()}
    icons = IconSet.from_archive(archives["icons"])
    words = load_vocabulary(settings.concepts)
    tags = read_tags(archives["tags"], words.concepts)
    every = set(load_vocabulary().concepts)
    rng = np.random.default_rng([settings.seed, 1])
    pictures: list[np.ndarray] = []
    rows: list[Picture] = []
    for number, concept in enumerate(words.concepts):
        drawn = rasterise(icons.svg(concept), settings.size)
        for rgba, row in _concept_rows(drawn, concept, words, rng):
            pictures.append(rgba)
            rows.append(row)
        if number % 60 == 0:
            say(f"data: {number} of {len(words.concepts)} concepts, {len(rows)} pictures")
    rest = [name for name in icons.names if name not in every]
    order = [rest[int(k)] for k in rng.permutation(len(rest))]
    count = settings.unseen + (settings.others or len(order))
    for number, name in enumerate(order[:count]):
        role = "unseen" if number < settings.unseen else "other"
        pictures.append(rasterise(icons.svg(name), settings.size))
        rows.append(Picture(concept=name, role=role))
    say(f"data: {len(rows)} pictures of {len(words.concepts)} concepts; writing")
    checkpoint.write_json(
        work / "pictures.json",
        {
            "settings": settings.name,
            "sources": {r: f"{p.name}@{p.version}" for r, p in pins.items()},
            "tags": tags,
            "rows": [[r.concept, r.role, r.colour, r.own] for r in rows],
        },
    )
    checkpoint.save(work / "pictures.safetensors", {"rgba": np.stack(pictures)}, {"n": len(rows)})


def open_shelf(work: Path, settings: Settings) -> Shelf:
    """Open what `build` wrote."""
    index = checkpoint.read_json(work / "pictures.json")
    arrays, _ = checkpoint.load(work / "pictures.safetensors")
    words = load_vocabulary(settings.concepts)
    rows = tuple(
        Picture(concept=concept, role=role, colour=colour, own=own)
        for concept, role, colour, own in index["rows"]
    )
    tags = {concept: tuple(words_) for concept, words_ in index["tags"].items()}
    full = Vocabulary(
        concepts=words.concepts, synonyms=words.synonyms, held_out=words.held_out, tags=tags
    )
    return Shelf(rgba=arrays["rgba"], rows=rows, vocabulary=full)
