"""Stage `finish`: averaged weights -> two diffusers folders (fp16 to ship, fp32 to compare)."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch

from export.errors import ExportError
from export.pocket import polish
from export.pocket.folder import networks, save_folder
from export.pocket.packages import pinned
from export.pocket.settings import Settings
from export.pocket.words import load_vocabulary

__all__ = ["MOST_PARAMETERS", "build", "card"]

MOST_PARAMETERS = 10_000_000  # issue: the model is small enough for the wheel


def build(work: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Write `WORK/pocket-fp32` and `WORK/pocket` from the finished stages."""
    trainer = polish.open_trainer(work, settings)
    if not trainer.done:
        raise ExportError("the polish is not at its end", hint="run the stage polish again")
    parts = networks(trainer.averaged(), work)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    if sum(counts.values()) > MOST_PARAMETERS:
        raise ExportError(f"the parts have {counts} parameters, more than {MOST_PARAMETERS}")
    concepts = load_vocabulary(settings.concepts).concepts
    for folder, dtype in ((work / "pocket-fp32", torch.float32), (work / "pocket", torch.float16)):
        save_folder(parts, folder, dtype)
        (folder / "concepts.txt").write_text("\n".join(concepts) + "\n", "utf-8")
        licence = resources.files("export.pocket").joinpath("LICENSE")
        (folder / "LICENSE").write_bytes(licence.read_bytes())
        (folder / "README.md").write_text(card(counts, len(concepts), settings), "utf-8")
    say(f"finish: {counts}, {sum(counts.values())} parameters; pocket and pocket-fp32 written")


def card(counts: dict[str, int], concepts: int, settings: Settings) -> str:
    """Write the model card; the measured numbers are added by whoever has measured them."""
    pins = pinned()
    sizes = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in sorted(counts.items()))
    samples = (settings.denoiser.steps + settings.polish.steps) * settings.denoiser.batch
    return f"""---
license: mit
pipeline_tag: text-to-image
---
# pocket

A Stable Diffusion in miniature, made to travel inside safelight: it draws a {settings.size} x
{settings.size} icon of one of {concepts} things in a second or less on any CPU. {sizes}:
{sum(counts.values()) / 1e6:.1f} M parameters.

![samples](grid.webp)

## What it can do
- icons of the things in `concepts.txt`, by their names and by many words that people use for them
  ("car", "puppy", "plane")
- seven colours for most of them: "blue cat face", "purple automobile"; combinations that it never
  saw are right in most cases (the measures say how many)
- two things at once ("apple and banana"), small and side by side; a coloured background ("red
  heart on a blue background")

## What it cannot do
- anything that is not in the list; it then draws something else, or nothing
- scenes, people, writing, style, counting, photographs
- surprise: most of what it draws is memory. `nearest.webp` shows beside each sample the training
  picture that is nearest to it. Seeds change size, place and direction more than the drawing
- fine lines and sharp corners: pictures pass through 16 x 16 x 4 numbers

Use 20 steps of DPM++ 2M and guidance 3 to 4.

## How it was made
`python -m export.pocket`, profile `{settings.name}`, seed {settings.seed}; nothing but the
pictures below was used. The VAE was trained on crops, then whole icons; UNet (v-prediction) and
text encoder together on {samples:,} samples, the last {settings.polish.steps:,} steps dwelling on
the tenth of the things that were drawn least surely before; averaged weights.

## Where the pictures come from
- icons: `{pins["icons"].name}` {pins["icons"].version}, Fluent Emoji by Microsoft, MIT
- tags: `{pins["tags"].name}` {pins["tags"].version}, MIT

Recoloured in OKLCH, mirrored, moved and resized by the recipe. `LICENSE` names their authors.
"""
