"""Stage `grid`: the sample sheet, and each sample beside the training picture nearest to it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from export.pocket.icons import composite
from export.pocket.measures import Gallery, model_concepts, spaces
from export.pocket.pictures import open_shelf
from export.pocket.sampling import Painter
from export.pocket.settings import Settings

__all__ = ["PROMPTS", "build", "sheet"]

# What a stranger would try first: names, everyday words, unseen colours, backgrounds, pairs.
PROMPTS = (
    "red apple",
    "puppy",
    "kitten",
    "rocket",
    "car",
    "tree",
    "plane",
    "octopus",
    "pizza",
    "sunflower",
    "robot",
    "snowman",
    "guitar",
    "owl",
    "house",
    "butterfly",
    "blue cat face",
    "purple automobile",
    "blue mushroom",
    "green octopus",
    "pink cactus",
    "red dolphin",
    "blue t-rex",
    "green rocket",
    "a cute penguin",
    "unicorn",
    "crown",
    "birthday cake",
    "star on a blue background",
    "cactus on a yellow background",
    "apple and banana",
    "cat face and dog face",
)
_SEEDS = (3, 4)
_GAP, _LABEL = 6, 16  # pixels


def sheet(pictures: np.ndarray, labels: Sequence[str], columns: int) -> Image.Image:
    """Lay out pictures uint8[n, S, S, 3] with a line of text below each."""
    size = pictures.shape[1]
    rows = -(-len(pictures) // columns)
    width = columns * (size + _GAP) + _GAP
    image = Image.new("RGB", (width, rows * (size + _GAP + _LABEL) + _GAP), (236, 236, 238))
    pen = ImageDraw.Draw(image)
    for k, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x = _GAP + k % columns * (size + _GAP)
        y = _GAP + k // columns * (size + _GAP + _LABEL)
        image.paste(Image.fromarray(picture), (x, y))
        pen.text((x + 2, y + size + 1), label[:24], fill=(40, 40, 48))
    return image


def build(work: Path, settings: Settings, model: Path, say: Callable[[str], None]) -> None:
    """Write `grid.png` and `nearest.png` into the model's copy of the sheets in WORK."""
    shelf = open_shelf(work, settings)
    painter = Painter.open(model)
    drawn, labels = [], []
    for start in range(0, len(PROMPTS), 8):
        for seed in _SEEDS:
            prompts = list(PROMPTS[start : start + 8])
            drawn.append(
                painter.draw(prompts, [seed * 1009 + start + k for k in range(8)], say=say)
            )
            labels += prompts
    samples = np.concatenate(drawn)
    sheet(samples, labels, 8).save(work / f"grid-{model.name}.png", optimize=True)
    say("grid: fitting the space for the nearest pictures")
    chosen = set(model_concepts(model, shelf))
    known = [r for r in shelf.where("concept", "recoloured") if shelf.rows[r].concept in chosen]
    rows, far = Gallery.hang(spaces(shelf, settings.seed)["full"], shelf, known).nearest(samples)
    beside = composite(shelf.rgba[rows])
    pairs = np.stack([samples, beside], axis=1).reshape(-1, *samples.shape[1:])
    titles = [f"{shelf.rows[r].colour} {shelf.rows[r].concept}".strip() for r in rows]
    both = [t for k, label in enumerate(labels) for t in (label, f"{far[k]:.2f} {titles[k]}")]
    sheet(pairs, both, 8).save(work / f"nearest-{model.name}.png", optimize=True)
    say(f"grid: wrote grid-{model.name}.png and nearest-{model.name}.png")
