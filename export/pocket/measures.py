"""Stage `evaluate`: the measures of a `pocket` folder, the same for any folder.

Everything is retrieval among known pictures in the spaces of `features`, or arithmetic on pixels.
A reference counts in both directions (as drawn and mirrored), since the recipe mirrors icons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.pocket import checkpoint
from export.pocket.autoencoder import to_signal
from export.pocket.colours import to_oklab
from export.pocket.features import Space, disturb, fit
from export.pocket.icons import composite
from export.pocket.pictures import Shelf, open_shelf
from export.pocket.sampling import GUIDANCE, Painter
from export.pocket.settings import Settings
from export.pocket.words import noun, stem

__all__ = ["Gallery", "build", "fidelity", "model_concepts", "whiteness"]

SEEDS = (11, 22)
_STRONG = 5.0  # guidance at which white is examined
_CORNER = 10  # pixels
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Known pictures as points of a space. `labels` names the row each point shows."""

    space: Space
    points: np.ndarray
    labels: np.ndarray

    @classmethod
    def hang(cls, space: Space, shelf: Shelf, rows: Sequence[int]) -> "Gallery":
        """Place rows of the shelf, as drawn and mirrored."""
        flat = composite(shelf.rgba[list(rows)])
        points = np.concatenate([space(flat), space(np.ascontiguousarray(flat[:, :, ::-1]))])
        return cls(space=space, points=points, labels=np.concatenate([rows, rows]))

    def nearest(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest row i64[n] to each picture, and its distance f[n] (1 - cosine)."""
        closeness = self.space(pictures) @ self.points.T
        best = closeness.argmax(axis=1)
        return self.labels[best], 1.0 - closeness[np.arange(len(best)), best]


def model_concepts(folder: Path, shelf: Shelf) -> list[str]:
    """List the concepts that a folder says it can draw, as far as the shelf has them."""
    known = [shelf.rows[row].concept for row in shelf.where("concept")]
    listed = folder / "concepts.txt"
    if not listed.exists():
        return known
    said = set(listed.read_text("utf-8").split())
    return [concept for concept in known if concept in said]


def fidelity(originals: np.ndarray, copies: np.ndarray) -> dict[str, float]:
    """Measure PSNR in dB of uint8 pictures: of the mean error, and the mean over pictures."""
    error = (originals.astype(np.float64) - copies.astype(np.float64)) ** 2
    each = np.maximum(error.mean(axis=(1, 2, 3)), 1e-3)
    return {
        "psnr_of_mean": round(float(10 * np.log10(255.0**2 / each.mean())), 3),
        "psnr_mean": round(float((10 * np.log10(255.0**2 / each)).mean()), 3),
    }


def whiteness(pictures: np.ndarray) -> np.ndarray:
    """Measure how far from white the four corners are, f[n], in steps of 0..255."""
    k = _CORNER
    corners = [
        pictures[:, y, x] for y in (slice(k), slice(-k, None)) for x in (slice(k), slice(-k, None))
    ]
    return (255.0 - np.stack(corners, axis=1).astype(np.float64)).mean(axis=(1, 2, 3, 4))


class _Examination:
    """Runs every measure on one folder."""

    def __init__(self, shelf: Shelf, painter: Painter, concepts: list[str], say: Say) -> None:
        self._shelf, self._painter, self._concepts, self._say = shelf, painter, concepts, say
        self._row = {shelf.rows[r].concept: r for r in shelf.where("concept")}

    def _draw(self, prompts: list[str], seed: int, guidance: float = GUIDANCE) -> np.ndarray:
        seeds = [seed * 100_003 + k for k in range(len(prompts))]
        return self._painter.draw(prompts, seeds, guidance=guidance, say=self._say)

    def in_set(self, gallery: Gallery) -> tuple[dict[str, object], list[np.ndarray]]:
        """Draw every concept by two seeds; count those whose nearest icon is their own."""
        prompts = [noun(concept) for concept in self._concepts]
        wanted = np.array([self._row[concept] for concept in self._concepts])
        drawn = [self._draw(prompts, seed) for seed in SEEDS]
        found = [gallery.nearest(pictures)[0] for pictures in drawn]
        right = np.stack([rows == wanted for rows in found])
        misses = [
            f"{self._concepts[k]} -> {self._shelf.rows[found[s][k]].concept}"
            for s, k in zip(*np.nonzero(~right), strict=True)
        ]
        return {
            "top1": round(float(right.mean()), 4),
            "of": int(right.size),
            "misses": misses,
        }, drawn

    def variety(self, drawn: list[np.ndarray], space: Space) -> dict[str, object]:
        """Measure how far two seeds' pictures of a prompt are apart, in pixels and in the space."""
        a, b = (to_oklab(pictures.astype(np.float32) / 255.0) for pictures in drawn)
        pixels = np.sqrt(((a - b) ** 2).sum(axis=3).mean(axis=(1, 2)))
        points = 1.0 - (space(drawn[0]) * space(drawn[1])).sum(axis=1)
        return {
            "oklab_rms": round(float(pixels.mean()), 5),
            "space_mean": round(float(points.mean()), 5),
            "each_oklab": {
                c: round(float(v), 4) for c, v in zip(self._concepts, pixels, strict=True)
            },
        }

    def synonyms(self, gallery: Gallery) -> dict[str, object]:
        """Draw each hand-written synonym once; count those that give their concept's icon."""
        words = [(w, c) for c in self._concepts for w in self._shelf.vocabulary.synonyms.get(c, ())]
        if not words:
            return {"top1": None, "of": 0}
        drawn = self._draw([word for word, _ in words], SEEDS[0])
        rows, _ = gallery.nearest(drawn)
        right = [self._shelf.rows[r].concept == c for r, (_, c) in zip(rows, words, strict=True)]
        return {
            "top1": round(float(np.mean(right)), 4),
            "of": len(words),
            "misses": [word for (word, _), good in zip(words, right, strict=True) if not good],
        }

    def held_out(self, shape: Space, colour: Space) -> dict[str, object]:
        """Draw combinations that nothing was trained on; judge colour and shape apart.

        Shape: the nearest of all training pictures, by edges, is of that concept. Colour: among
        that concept's icon in all its colours, the nearest by colour is the one asked for.
        """
        rows = [
            r
            for r in self._shelf.where("held-out")
            if self._shelf.rows[r].concept in self._concepts
        ]
        if not rows:
            return {"of": 0}
        asked = [self._shelf.rows[r] for r in rows]
        prompts = [f"{p.colour} {stem(p.concept)}" for p in asked]
        known = [
            r
            for r in self._shelf.where("concept", "recoloured")
            if self._shelf.rows[r].concept in self._concepts
        ]
        shapes = Gallery.hang(shape, self._shelf, known)
        results: list[tuple[str, bool, bool]] = []
        for seed in SEEDS:
            drawn = self._draw(prompts, seed)
            found, _ = shapes.nearest(drawn)
            for k, picture in enumerate(asked):
                same = [i for i, p in enumerate(self._shelf.rows) if p.concept == picture.concept]
                hues, _ = Gallery.hang(colour, self._shelf, same).nearest(drawn[k : k + 1])
                got = self._shelf.rows[found[k]].concept == picture.concept
                results.append((prompts[k], bool(hues[0] == rows[k]), got))
        return {
            "combinations": len(rows),
            "of": len(results),
            "colour": round(float(np.mean([c for _, c, _ in results])), 4),
            "shape": round(float(np.mean([s for _, _, s in results])), 4),
            "both": round(float(np.mean([c and s for _, c, s in results])), 4),
            "misses": [f"{p}: colour {c}, shape {s}" for p, c, s in results if not (c and s)],
        }

    def white(self) -> dict[str, object]:
        """Draw at strong guidance; measure the corners where the icon itself leaves them white."""
        flat = composite(self._shelf.rgba[[self._row[c] for c in self._concepts]])
        clear = [c for c, w in zip(self._concepts, whiteness(flat), strict=True) if w < 0.01]
        chosen = clear[:: max(1, len(clear) // 96)][:96]
        off = whiteness(self._draw([noun(c) for c in chosen], SEEDS[0], _STRONG))
        return {
            "guidance": _STRONG,
            "of": len(chosen),
            "mean_off_white": round(float(off.mean()), 3),
            "worst": round(float(off.max()), 3),
            "within_2": round(float((off <= 2.0).mean()), 4),
        }

    def autoencoder(self) -> dict[str, float]:
        """Send icons that nothing was trained on through the VAE."""
        originals = composite(self._shelf.rgba[self._shelf.where("unseen")])
        parts = [originals[i : i + 16] for i in range(0, len(originals), 16)]
        copies = np.concatenate([self._painter.reconstruct(to_signal(p)) for p in parts])
        return fidelity(originals, copies) | {"of": float(len(originals))}

    def memory(self, drawn: np.ndarray, space: Space) -> dict[str, object]:
        """Name the nearest training picture of each sample."""
        known = self._shelf.where("concept", "recoloured")
        rows, far = Gallery.hang(space, self._shelf, known).nearest(drawn)
        titles = [f"{p.colour} {p.concept}".strip() for p in self._shelf.rows]
        own = [self._shelf.rows[r].concept == c for r, c in zip(rows, self._concepts, strict=True)]
        return {
            "own_concept": round(float(np.mean(own)), 4),
            "distance_median": round(float(np.median(far)), 4),
            "each": {
                c: [titles[r], round(float(d), 4)]
                for c, r, d in zip(self._concepts, rows, far, strict=True)
            },
        }


def accuracy(gallery: Gallery, shelf: Shelf, rows: Sequence[int], seed: int) -> float:
    """Tell how many freshly disturbed icons the gallery names rightly: the space's own warrant."""
    rng = np.random.default_rng([seed, 7])
    drawn = np.stack([disturb(shelf.rgba[row], rng) for row in rows for _ in range(2)])
    found, _ = gallery.nearest(drawn)
    return round(float((found == np.repeat(rows, 2)).mean()), 4)


def spaces(shelf: Shelf, seed: int) -> dict[str, Space]:
    """Fit the three spaces on all known pictures; a shape's class is its concept in any colour."""
    rows = shelf.where("concept", "recoloured")
    names = {c: k for k, c in enumerate(shelf.vocabulary.concepts)}
    by_concept = [names[shelf.rows[r].concept] for r in rows]
    rgba = shelf.rgba[rows]
    labels = {"full": list(range(len(rows))), "shape": by_concept, "colour": list(range(len(rows)))}
    copies = {"full": 3, "shape": 2, "colour": 3}
    return {s: fit(rgba, labels[s], s, seed=seed, copies=copies[s]) for s in labels}


def build(
    work: Path, settings: Settings, model: Path, *, limit: int, say: Say
) -> dict[str, object]:
    """Examine a folder; write `evaluation-NAME.json` into WORK and return it."""
    shelf = open_shelf(work, settings)
    concepts = model_concepts(model, shelf)
    concepts = concepts[:: max(1, len(concepts) // limit)][:limit] if limit else concepts
    say("evaluate: fitting the spaces")
    fitted = spaces(shelf, settings.seed)
    chosen = set(concepts)
    rows = [r for r in shelf.where("concept") if shelf.rows[r].concept in chosen]
    gallery = Gallery.hang(fitted["full"], shelf, rows)
    known = [r for r in shelf.where("concept", "recoloured") if shelf.rows[r].concept in chosen]
    shapes = Gallery.hang(fitted["shape"], shelf, known)
    exam = _Examination(shelf, Painter.open(model), concepts, say)
    in_set, drawn = exam.in_set(gallery)
    report: dict[str, object] = {
        "model": model.name,
        "concepts": len(concepts),
        "space_accuracy": {
            "full": accuracy(gallery, shelf, rows, settings.seed),
            "shape": _shape_accuracy(shapes, shelf, known, settings.seed),
        },
        "in_set": in_set,
        "variety": exam.variety(drawn, fitted["full"]),
        "held_out": exam.held_out(fitted["shape"], fitted["colour"]),
        "synonyms": exam.synonyms(gallery),
        "white": exam.white(),
        "vae": exam.autoencoder(),
        "memory": exam.memory(drawn[0], fitted["full"]),
    }
    checkpoint.write_json(work / f"evaluation-{model.name}.json", report)
    return report


def _shape_accuracy(gallery: Gallery, shelf: Shelf, rows: Sequence[int], seed: int) -> float:
    """Tell how many disturbed icons in any colour are named rightly by shape alone."""
    rng = np.random.default_rng([seed, 8])
    drawn = np.stack([disturb(shelf.rgba[row], rng) for row in rows])
    found, _ = gallery.nearest(drawn)
    same = [
        shelf.rows[f].concept == shelf.rows[r].concept for f, r in zip(found, rows, strict=True)
    ]
    return round(float(np.mean(same)), 4)
