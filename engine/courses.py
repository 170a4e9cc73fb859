"""How a pass runs: row by row with the loop on the host, or whole steps that the device queues."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.beginning import Beginning
from engine.interval import limits_guidance
from engine.loop import Denoise, integrate
from engine.samplers import Table
from engine.stepgraph import Program

if TYPE_CHECKING:
    from engine.backends import StepSession
    from engine.inputs import Inputs
    from engine.manifest import Manifest
    from engine.request import GenerationRequest
    from engine.texts import Texts

__all__ = ["AT_ONCE", "Course", "Rows", "Steps", "noised", "why_row_by_row"]

Float32 = NDArray[np.float32]
# Steps that may wait on the device, so that it never waits for the host; cancelling takes as many.
AT_ONCE: Final = 4


def why_row_by_row(
    request: "GenerationRequest", texts: "Texts", inputs: "Inputs", manifest: "Manifest"
) -> str:
    """Say why the step graph cannot draw this; '' where it can."""
    reasons = {
        "ControlNets steer it": bool(request.controls),
        "a refiner takes part": bool(request.refiner),
        "deep features are reused": request.reuse_every > 1,
        "keys and values are thinned": request.kv_downsampling > 1,
        "guidance ends within it": limits_guidance(request),
        "the prompt changes on the way": len(set(texts.shown)) > 1,
        "known latents are put back": bool(inputs.mask.size),
        "the unet sees more than latents": manifest.unet_channels != manifest.latent_channels,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class Course(Protocol):
    """One pass on its way, an evaluation of the network at a time."""

    def advance(self) -> None:
        """Come one evaluation further."""
        ...

    def denoised(self) -> Float32:
        """Give a prediction f32[1, 4, h, w] for a preview: the newest one. It holds until the next
        `advance`.
        """
        ...

    def latents(self) -> Float32:
        """Give the latents f32[1, 4, h, w] after the last row, the caller's own."""
        ...


class Rows:
    """The loop on the host, which puts back what is not painted over after each row."""

    def __init__(self, table: Table, begun: Beginning, denoise: Denoise) -> None:
        self._rows = _rows(table, begun, denoise)
        self._latents = self._denoised = begun.start

    def advance(self) -> None:
        """Run a row."""
        with np.errstate(over="ignore", invalid="ignore"):  # the guard looks at the result
            self._latents, self._denoised = next(self._rows)

    def denoised(self) -> Float32:
        """Give the prediction of the row that was run last."""
        return self._denoised

    def latents(self) -> Float32:
        """Copy what the last row gave."""
        return self._latents.copy()


def _rows(table: Table, begun: Beginning, denoise: Denoise) -> Iterator[tuple[Float32, Float32]]:
    sigmas = table.sigmas
    for row, x, denoised in integrate(table, begun.noise, begun.start, denoise):
        # Behind the last row there is no noise left, whatever level the sampler ends at.
        begun.keep(x, float(sigmas[row + 1]) if row + 1 < len(sigmas) else 0.0)
        yield x, denoised


class Steps:
    """Whole steps on a device, AT_ONCE of them asked for ahead; a preview waits for them."""

    def __init__(self, session: "StepSession", program: Program) -> None:
        self._session = session
        self._rows = program.rows
        self._asked = self._done = 0
        session.begin(program)

    def advance(self) -> None:
        """Ask for steps ahead, and wait until one more is done."""
        self._done += 1
        while self._asked < min(self._rows, self._done + AT_ONCE - 1):
            self._session.enqueue()
            self._asked += 1
        self._session.wait(self._asked - self._done)

    def denoised(self) -> Float32:
        """Give the prediction of the newest step that was asked for."""
        return self._session.denoised()

    def latents(self) -> Float32:
        """Give the latents after the last step."""
        return self._session.latents()


def noised(table: Table, begun: Beginning) -> tuple[Float32, list[Float32]]:
    """Draw all noise of a pass: the latents that it starts with, and the pieces that rows add."""
    shape = begun.start.shape
    first = begun.noise.normal(shape) * np.float32(table.initial_scale) + begun.start
    return first, [begun.noise.normal(shape) for _ in range(int(np.count_nonzero(table.noise)))]
