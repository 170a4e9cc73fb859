"""Takes down what each component of a bundle is really given while a picture is drawn.

The engine draws one picture with a public prompt in a few steps; a back end that wraps the real one
keeps the inputs. So the ranges of activations come from a true path, from noise to picture.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Backend, Libraries, Session, Shapes
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle
from engine.events import Picture
from engine.pipeline import Pipeline

__all__ = ["RecordingBackend", "recorded_inputs"]

PROMPT = "a red apple on a wooden table, studio light"
STEPS = 4
SEED = 20
SIDE_LIMIT = 512  # pixels; SDXL at its own 1024 would take minutes and reaches no further


class RecordingBackend:
    """Passes everything to another back end and keeps each component's inputs in `runs`."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.runs: dict[str, list[dict[str, Array]]] = {}

    @property
    def name(self) -> str:
        """Name the back end that computes."""
        return self._inner.name

    @property
    def device(self) -> str:
        """Name its device."""
        return self._inner.device

    @property
    def precision(self) -> str:
        """Name its precision."""
        return self._inner.precision

    @property
    def libraries(self) -> Libraries:
        """Name its libraries."""
        return self._inner.libraries

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load a component; what its session is given is kept under the component's name."""
        session = self._inner.load(model, shapes, identity=identity)
        return _RecordingSession(session, self.runs.setdefault(model.parent.name, []))

    def exact(self) -> "RecordingBackend":
        """Give itself: ranges are those of fp32."""
        return self


class _RecordingSession:
    def __init__(self, inner: Session, runs: list[dict[str, Array]]) -> None:
        self._inner = inner
        self._runs = runs

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output."""
        self._keep(inputs)
        return self._inner.run(inputs)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output."""
        self._keep(inputs)
        return self._inner.run_all(inputs)

    def _keep(self, inputs: Mapping[str, Array]) -> None:
        self._runs.append({name: np.array(value) for name, value in inputs.items()})


def recorded_inputs(bundle: Bundle) -> dict[str, list[dict[str, Array]]]:
    """Draw one picture in fp32 and give component -> the named inputs of each of its runs.

    The picture has the bundle's own size, at most 512 pixels a side; it goes back through the VAE
    encoder where the bundle has one. Raises the engine's errors.
    """
    backend = RecordingBackend(OnnxRuntimeBackend())
    request = bundle.request(
        prompt=PROMPT,
        seed=SEED,
        steps=STEPS,
        width=min(SIDE_LIMIT, bundle.manifest.default_width),
        height=min(SIDE_LIMIT, bundle.manifest.default_height),
    )
    events = Pipeline(bundle, backend).generate(request)
    pixels = next(event.pixels for event in events if isinstance(event, Picture))
    if "vae_encoder" in bundle.manifest.components:
        sample = pixels.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1  # (1, 3, H, W)
        backend.runs["vae_encoder"] = [{"sample": sample}]
    return backend.runs
