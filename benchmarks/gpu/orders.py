"""One network to measure, and how: queued evaluations, or whole steps of a trajectory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.graphs import Model, graph_of, inputs_of
from benchmarks.gpu.timing import psnr, timed
from engine.stepgraph import COLUMNS, HEAD, LATENTS, SLOTS, Program

if TYPE_CHECKING:
    from engine.backends.devicestep import DeviceStep, Timeline

__all__ = ["Order", "queued", "step_program", "step_shapes", "stepped"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to measure. device: cpu or cuda. wanted: the exact result of `inputs_of`."""

    model: Model
    pictures: int
    device: str
    counts: Sequence[int]
    rounds: int
    work: Path
    wanted: NDArray[np.float32]

    @property
    def precision(self) -> str:
        """Name the arithmetic that the device is fast in."""
        return "fp16" if self.device == "cuda" else "fp32"

    def graph(self, form: str) -> Path:
        """Give the graph in a form."""
        return graph_of(self.model, form, self.work)


def queued(
    order: Order, enqueue: Callable[[], object], timeline: "Timeline"
) -> Mapping[str, Mapping[str, Any]]:
    """Time evaluations that are queued one behind the other, each marked in the stream."""
    marks: list[object] = []

    def step() -> None:
        enqueue()
        marks.append(timeline.mark())

    def wait() -> None:
        while marks:
            timeline.wait(marks.pop(0))

    return timed(step, wait, order.counts, order.rounds)


def stepped(order: Order, step: "DeviceStep", program: Program) -> dict[str, Any]:
    """Compare one whole step with the exact one, and time as many as are asked for."""
    step.begin(program)
    step.enqueue()
    result = step.latents()
    times = timed(
        step.enqueue,
        lambda: step.wait(0),
        order.counts,
        order.rounds,
        reset=lambda: step.begin(program),
    )
    return {
        "precision": order.precision,
        "includes": "network, guidance, sampler",
        "psnr": psnr(result, order.wanted[: order.pictures]),
        "times": times,
    }


def step_shapes(program: Program) -> dict[str, tuple[int, ...]]:
    """Give the shapes of a step graph's inputs."""
    shapes = {name: array.shape for name, array in program.inputs.items()}
    shapes |= {"state": program.state.shape, "row": (1,), "table": program.table.shape}
    return shapes | {"noise": program.noise.shape, "mix": program.mix.shape}


def step_program(order: Order) -> Program:
    """Write a trajectory whose every step puts the first text's prediction in x's place."""
    given = inputs_of(order.model, order.pictures)
    count, *rest = given["sample"].shape
    pictures = count // 2
    table = np.zeros((64, COLUMNS), np.float32)
    table[:, : len(HEAD)] = (500.0, 1.0, 0.0, 1.0, 0.0)
    table[:, len(HEAD) + LATENTS] = 1.0  # the newest prediction
    state = np.zeros((SLOTS, pictures, *rest), np.float32)
    state[0] = given["sample"][:pictures]
    inputs = {name: array for name, array in given.items() if name not in {"sample", "timestep"}}
    return Program(
        rows=64,
        table=table,
        noise=np.zeros((1, pictures, *rest), np.float32),
        state=state,
        mix=np.array([1.0, 0.0], np.float32)[:, None, None, None, None],
        inputs=inputs,
    )
