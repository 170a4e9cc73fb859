"""Stage `latents`: encodes every placement of every training picture once.

The UNet then trains on 2 kB a picture instead of running the encoder. `latents.safetensors`:
latents f16[M, 4, S/8, S/8], and what each shows: row i32[M] of the shelf, second i32[M] (a pair's
right icon, else -1), background i32[M] (index into the sorted names, -1 for white).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from export.pocket import checkpoint
from export.pocket.autoencoder import encode_mean, load_autoencoder, to_signal
from export.pocket.colours import BACKGROUNDS
from export.pocket.icons import composite
from export.pocket.pictures import Shelf, open_shelf
from export.pocket.placement import Placement, beside, compose, place, random_placement
from export.pocket.settings import Settings

__all__ = ["LatentSet", "build", "open_latents", "plan_scenes"]

# Mirrored, these would be wrong: they hold writing.
_NO_FLIP = frozenset({"hundred-points", "input-numbers"})


@dataclass(frozen=True, kw_only=True)
class _Scene:
    row: int
    second: int = -1
    background: int = -1
    at: Placement = field(default_factory=Placement)


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """All latents f16[M, 4, h, w] and what each of them shows, i32[M] each."""

    latents: np.ndarray
    row: np.ndarray
    second: np.ndarray
    background: np.ndarray

    def of_row(self, row: int, *, coloured: bool) -> np.ndarray:
        """List the single pictures of a row, on white or on colours."""
        alone = (self.row == row) & (self.second < 0)
        return np.flatnonzero(alone & ((self.background >= 0) == coloured))


def plan_scenes(shelf: Shelf, settings: Settings) -> list[_Scene]:
    """Decide every scene: the first placement of each picture is its own, unmoved."""
    plan = settings.latents
    rng = np.random.default_rng([settings.seed, 4])
    scenes: list[_Scene] = []
    for row in shelf.where("concept", "recoloured"):
        picture = shelf.rows[row]
        original = picture.role == "concept"
        flips = picture.concept not in _NO_FLIP
        white = plan.original if original else plan.recoloured
        coloured = plan.original_coloured if original else plan.recoloured_coloured
        for number in range(white + coloured):
            at = random_placement(rng, shift=plan.shift, smallest=plan.smallest, flips=flips)
            unmoved = number == 0
            background = int(rng.integers(len(BACKGROUNDS))) if number >= white else -1
            scenes.append(_Scene(row=row, background=background, at=Placement() if unmoved else at))
    originals = shelf.where("concept")
    for _ in range(plan.pairs):
        left, right = (int(k) for k in rng.choice(len(originals), 2, replace=False))
        scenes.append(_Scene(row=originals[left], second=originals[right]))
    return scenes


def _draw(scene: _Scene, shelf: Shelf) -> np.ndarray:
    """Draw a scene: uint8[S, S, 3]."""
    if scene.second >= 0:
        return composite(beside(shelf.rgba[scene.row], shelf.rgba[scene.second]))
    rgba = place(shelf.rgba[scene.row], scene.at)
    if scene.background < 0:
        return composite(rgba)
    return compose(rgba, sorted(BACKGROUNDS)[scene.background])


def build(work: Path, settings: Settings, minutes: float, say: Callable[[str], None]) -> bool:
    """Encode all scenes; seconds to minutes. Always finishes, whatever `minutes` says."""
    del minutes
    shelf = open_shelf(work, settings)
    scenes = plan_scenes(shelf, settings)
    vae = load_autoencoder(work / "vae")
    out = np.empty((len(scenes), 4, settings.size // 8, settings.size // 8), np.float16)
    batch = settings.latents.batch
    with torch.no_grad():
        for start in range(0, len(scenes), batch):
            x = to_signal(np.stack([_draw(s, shelf) for s in scenes[start : start + batch]]))
            out[start : start + batch] = encode_mean(vae, x).numpy()
            if start % (batch * 64) == 0:
                say(f"latents: {start} of {len(scenes)}")
    arrays = {
        "latents": out,
        "row": np.array([s.row for s in scenes], np.int32),
        "second": np.array([s.second for s in scenes], np.int32),
        "background": np.array([s.background for s in scenes], np.int32),
    }
    checkpoint.save(work / "latents.safetensors", arrays, {"settings": settings.as_dict()})
    say(f"latents: finished, {len(scenes)}; deviation {float(out.astype(np.float32).std()):.3f}")
    return True


def open_latents(work: Path) -> LatentSet:
    """Open what `build` wrote."""
    arrays, _ = checkpoint.load(work / "latents.safetensors")
    return LatentSet(**arrays)
