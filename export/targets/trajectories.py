"""The engine's own trajectories with public prompts: what calibrates a network, what judges it.

Nobody's own prompts are used: these are fixed, and stand here for all to read. Those that judge
are others than those that calibrate, with other seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Backend, Libraries, Session, Shapes
from engine.bundle import Bundle
from engine.events import Picture
from engine.pipeline import Pipeline

__all__ = [
    "CALIBRATION",
    "HELD_OUT",
    "OBSERVED_STEPS",
    "Recorder",
    "Replaced",
    "draw",
    "psnr",
    "recorded_inputs",
]

# (prompt, seed): simple things, people, places, styles, and the empty prompt
CALIBRATION = (
    ("a red apple on a wooden table, studio light", 11),
    ("portrait photograph of an old fisherman, grey beard, soft light", 12),
    ("a lighthouse on a cliff at dusk, oil painting", 13),
    ("a blue bicycle in front of a white wall", 14),
    ("a snowy mountain village at night, watercolour", 15),
    ("", 16),
)
HELD_OUT = (
    ("a green pear in a bowl", 101),
    ("a cat asleep on a windowsill, morning sun", 102),
    ("a city street in the rain, neon signs, photograph", 103),
    ("a yellow sailing boat on a calm sea, drawing", 104),
)
OBSERVED = ("a red apple on a wooden table, studio light", 20)
OBSERVED_STEPS = 4
SIDE_LIMIT = 512  # pixels; SDXL at its own 1024 would take minutes and reaches no further
SEEDS_EACH = 2  # pictures of each held-out prompt
PSNR_CAP = 200.0  # dB; what equal pictures get, since JSON has no infinity
PEAK = 255.0  # the largest value of a uint8 pixel


def draw(
    bundle: Bundle,
    backend: Backend,
    orders: Sequence[tuple[str, int]],
    count: int,
    progress: Callable[[float], None],
) -> list[NDArray[np.uint8]]:
    """Draw `count` pictures of each (prompt, seed) with the bundle's defaults: uint8[H, W, 3].

    progress: called with the done fraction, 0..1.
    """
    pipeline = Pipeline(bundle, backend)
    pictures: list[NDArray[np.uint8]] = []
    for prompt, seed in orders:
        for event in pipeline.generate(bundle.request(prompt=prompt, seed=seed, count=count)):
            if isinstance(event, Picture):
                pictures.append(event.pixels)
                progress(len(pictures) / (count * len(orders)))
    return pictures


def psnr(got: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Give the peak signal-to-noise ratio of two pictures, dB against 255; 200 for equal ones."""
    error = float(np.mean((got.astype(np.float64) - wanted.astype(np.float64)) ** 2))
    return PSNR_CAP if error == 0 else min(PSNR_CAP, float(10 * np.log10(PEAK**2 / error)))


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """A back end that passes all on to another one."""

    inner: Backend

    @property
    def name(self) -> str:
        """Name the inner one."""
        return self.inner.name

    @property
    def device(self) -> str:
        """Name the inner one's device."""
        return self.inner.device

    @property
    def precision(self) -> str:
        """Name the inner one's precision."""
        return self.inner.precision

    @property
    def libraries(self) -> Libraries:
        """Name the inner one's libraries."""
        return self.inner.libraries

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load by the inner one."""
        return self.inner.load(model, shapes, identity=identity)

    def exact(self) -> Backend:
        """Give the inner one's exact form: a repair is neither recorded nor replaced."""
        return self.inner.exact()


@dataclass(frozen=True, kw_only=True)
class Replaced(Wrapped):
    """Loads another file where a component's own is asked for. files: component -> file."""

    files: Mapping[str, Path]

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load the component's replacement, or its own where there is none."""
        other = self.files.get(model.parent.name)
        if other is None:
            return self.inner.load(model, shapes, identity=identity)
        return self.inner.load(other, shapes)


@dataclass(frozen=True, kw_only=True)
class Recorder(Wrapped):
    """Keeps what components are given. every: of each network's runs one of so many is kept; the
    first is. kept: component -> the named inputs of its runs.
    """

    every: int = 1
    kept: dict[str, list[dict[str, Array]]] = field(default_factory=dict[str, "list[Any]"])

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load by the inner one, and listen."""
        session = self.inner.load(model, shapes, identity=identity)
        return _Listening(session, self.every, self.kept.setdefault(model.parent.name, []))


class _Listening:
    def __init__(self, session: Session, every: int, kept: list[dict[str, Array]]) -> None:
        self._session = session
        self._every = every
        self._kept = kept
        self._runs = 0

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        self._keep(inputs)
        return self._session.run(inputs)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        self._keep(inputs)
        return self._session.run_all(inputs)

    def _keep(self, inputs: Mapping[str, Array]) -> None:
        if self._runs % self._every == 0:
            self._kept.append({name: np.array(each) for name, each in inputs.items()})
        self._runs += 1


def recorded_inputs(bundle: Bundle) -> dict[str, list[dict[str, Array]]]:
    """Draw one picture in fp32 and give component -> the named inputs of each of its runs.

    So the ranges of activations come from a true path, from noise to picture. The picture has the
    bundle's own size, at most 512 pixels a side; it goes back through the VAE encoder where the
    bundle has one. Raises the engine's errors.
    """
    from engine.backends.onnxruntime import OnnxRuntimeBackend

    recorder = Recorder(inner=OnnxRuntimeBackend())
    prompt, seed = OBSERVED
    request = bundle.request(
        prompt=prompt,
        seed=seed,
        steps=OBSERVED_STEPS,
        width=min(SIDE_LIMIT, bundle.manifest.default_width),
        height=min(SIDE_LIMIT, bundle.manifest.default_height),
    )
    events = Pipeline(bundle, recorder).generate(request)
    pixels = next(event.pixels for event in events if isinstance(event, Picture))
    if "vae_encoder" in bundle.manifest.components:
        sample = pixels.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1  # (1, 3, H, W)
        recorder.kept["vae_encoder"] = [{"sample": sample}]
    return recorder.kept
