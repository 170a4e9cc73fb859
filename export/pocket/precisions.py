"""Stage `precisions`: what rounding costs, against the checkpoint as it was trained (fp32).

The shipped folder holds fp16 weights; an engine may compute in fp32, bf16 or fp16. Each of these
draws the same prompts from the same noise as `pocket-fp32` does in fp32.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from export.pocket import checkpoint
from export.pocket.measures import Gallery, fidelity, model_concepts, spaces
from export.pocket.pictures import open_shelf
from export.pocket.sampling import Painter
from export.pocket.settings import Settings
from export.pocket.words import noun

__all__ = ["build"]

# Concepts. Without instructions for them bf16 and fp16 take half a minute a picture on one thread.
_MOST = 16
_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build(
    work: Path, settings: Settings, limit: int, say: Callable[[str], None]
) -> dict[str, object]:
    """Compare the precisions; write `precisions.json` into WORK and return it."""
    shelf = open_shelf(work, settings)
    trained, shipped = work / "pocket-fp32", work / "pocket"
    concepts = model_concepts(trained, shelf)
    count = limit or _MOST
    concepts = concepts[:: max(1, len(concepts) // count)][:count]
    rows = shelf.where("concept")
    gallery = Gallery.hang(spaces(shelf, settings.seed)["full"], shelf, rows)
    prompts = [noun(concept) for concept in concepts]
    seeds = list(range(700, 700 + len(prompts)))
    reference = Painter.open(trained).draw(prompts, seeds)
    report: dict[str, object] = {"concepts": len(concepts)}

    def judge(name: str, drawn: np.ndarray) -> None:
        found, _ = gallery.nearest(drawn)
        right = [shelf.rows[r].concept == c for r, c in zip(found, concepts, strict=True)]
        report[name] = fidelity(reference, drawn) | {"top1": round(float(np.mean(right)), 4)}
        say(f"precisions: {name} {report[name]}")

    judge("trained fp32", reference)
    for name, kind in _KINDS.items():
        judge(f"shipped {name}", Painter.open(shipped, precision=kind).draw(prompts, seeds))
    checkpoint.write_json(work / "precisions.json", report)
    return report
