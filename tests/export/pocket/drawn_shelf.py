"""A shelf of plain drawn shapes under real concept names: no npm, no SVG."""

import numpy as np

from export.pocket import checkpoint

SIZE = 128
SHAPES = {
    "bell": ("disc", (220, 40, 40)),
    "butterfly": ("bars", (40, 90, 220)),
    "teddy-bear": ("square", (40, 160, 60)),
    "crocodile": ("ring", (150, 60, 200)),
}


def icon(shape, colour):
    """Premultiplied uint8[128, 128, 4]."""
    y, x = np.mgrid[:SIZE, :SIZE] - 63.5
    radius = np.hypot(y, x)
    mask = {
        "disc": radius < 45,
        "ring": (radius < 50) & (radius > 30),
        "square": (abs(y) < 40) & (abs(x) < 40),
        "bars": (abs(y) < 50) & (x.astype(int) % 32 < 16) & (x > -50) & (x < 30),
    }[shape]
    out = np.zeros((SIZE, SIZE, 4), np.uint8)
    out[mask] = (*colour, 255)
    return out


def write_shelf(work):
    """Write `pictures.json` and `pictures.safetensors` as the stage `data` does."""
    rows, rgba = [], []
    for concept, (shape, colour) in SHAPES.items():
        rows.append([concept, "concept", "", "red" if concept == "bell" else ""])
        rgba.append(icon(shape, colour))
        rows.append([concept, "recoloured", "orange", ""])
        rgba.append(icon(shape, (250, 160, 40)))
    rows += [["butterfly", "held-out", "purple", ""], ["x-ray", "other", "", ""]]
    rgba += [icon("bars", (150, 60, 200)), icon("disc", (10, 10, 10))]
    rows += [["spoon", "unseen", "", ""], ["tooth", "unseen", "", ""]]
    rgba += [icon("square", (90, 200, 220)), icon("ring", (60, 60, 60))]
    tags = {concept: ["shape", "plain"] for concept in SHAPES}
    checkpoint.write_json(work / "pictures.json", {"rows": rows, "tags": tags})
    checkpoint.save(work / "pictures.safetensors", {"rgba": np.stack(rgba)}, {})
