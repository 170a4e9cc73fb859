"""Stage `polish`: a second, short course that dwells on what the first one learned least well.

The first model draws every concept by seeds that the examination does not use; the concepts whose
pictures are least surely their own icon are then drawn more often from the lessons. Averaged
weights go on, the optimizer and its learning rate start afresh and come to rest again.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from export.errors import ExportError
from export.pocket import checkpoint, denoiser
from export.pocket.features import Space, fit
from export.pocket.folder import networks, save_folder
from export.pocket.latents import open_latents
from export.pocket.measures import Gallery
from export.pocket.pictures import Shelf, open_shelf
from export.pocket.sampling import Painter
from export.pocket.settings import Settings
from export.pocket.training import Course, Trainer, cosine
from export.pocket.words import noun

__all__ = ["build", "margins", "open_trainer", "weakest"]

_FIRST = "first-course"  # the first model's diffusers folder in WORK
_SEEDS = (303, 404)  # not the examination's
_WEAK = "weak.json"


def build(work: Path, settings: Settings, minutes: float, say: Callable[[str], None]) -> bool:
    """Find the weak concepts once, then train for some minutes; True when the course is over."""
    if not (work / _WEAK).exists():
        checkpoint.write_json(work / _WEAK, _examined(work, settings, say))
    trainer = open_trainer(work, settings)
    for progress in trainer.run(minutes):
        say(progress.line("polish"))
    if trainer.done:
        say("polish: finished")
    return trainer.done


def open_trainer(work: Path, settings: Settings) -> Trainer:
    """Take the finished first course's averaged weights, or this course's own checkpoint."""
    first = denoiser.open_trainer(work, settings)
    _refuse_unfinished(first)
    network = first.averaged()
    plan, before = settings.polish, settings.denoiser
    weak = checkpoint.read_json(work / _WEAK)
    lessons = denoiser.Lessons(
        network,
        open_shelf(work, settings),
        open_latents(work),
        settings,
        repeated=dict.fromkeys(weak, plan.emphasis),
    )
    course = Course(
        name="polish-state",
        steps=plan.steps,
        loss=lambda step: lessons.loss(before.steps + step),
        learning_rate=lambda step: cosine(
            step, plan.steps, warmup=settings.warmup_steps, peak=plan.learning_rate
        ),
        samples=lambda _: before.batch,
        ema=before.ema,
        plan=asdict(plan),
    )
    return Trainer(network, course, work, settings)


def _refuse_unfinished(first: Trainer) -> None:
    if not first.done:
        raise ExportError("the UNet is not trained to its end", hint="run the stage unet again")


def margins(space: Space, shelf: Shelf, rows: list[int], pictures: np.ndarray) -> np.ndarray:
    """Tell how surely each picture uint8[n, S, S, 3] is the icon of `rows[n]`: f[n].

    The closeness (cosine) to that icon less the closeness to the nearest other; below 0: mistaken.
    """
    gallery = Gallery.hang(space, shelf, rows)
    closeness = space(pictures) @ gallery.points.T
    own = gallery.labels == np.array(rows)[:, None]
    return np.where(own, closeness, -2.0).max(axis=1) - np.where(own, -2.0, closeness).max(axis=1)


def weakest(concepts: list[str], margin: np.ndarray, share: float) -> list[str]:
    """Name the share of the concepts with the least margin, in order of the alphabet."""
    count = max(1, round(share * len(concepts)))
    return sorted(concepts[k] for k in np.argsort(margin, kind="stable")[:count])


def _examined(work: Path, settings: Settings, say: Callable[[str], None]) -> list[str]:
    """Draw every concept with the first model and name those that it is least sure of."""
    first = denoiser.open_trainer(work, settings)
    _refuse_unfinished(first)
    save_folder(networks(first.averaged(), work), work / _FIRST, torch.float32)
    shelf = open_shelf(work, settings)
    rows = shelf.where("concept")
    concepts = [shelf.rows[row].concept for row in rows]
    space = fit(shelf.rgba[rows], range(len(rows)), "full", seed=settings.seed, copies=3)
    painter = Painter.open(work / _FIRST)
    prompts = [noun(concept) for concept in concepts]
    least = np.full(len(rows), np.inf)
    for seed in _SEEDS:
        drawn = painter.draw(prompts, [seed * 100_003 + k for k in range(len(rows))], say=say)
        least = np.minimum(least, margins(space, shelf, rows, drawn))
    weak = weakest(concepts, least, settings.polish.share)
    say(f"polish: {int((least < 0).sum())} concepts are mistaken; dwells on {', '.join(weak)}")
    return weak
