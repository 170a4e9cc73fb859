"""A trajectory on a device by the step graph: one call a step, nothing else.

Two sets of outputs take turns as inputs, so that no output lies where an input does and all
addresses stay; each direction is a CUDA graph of its own. Where a library keeps one graph only,
outputs are copied back over the inputs on the device instead. The table, all noise and the texts go
up once, latents come down once, and a preview is one more copy when somebody asks for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Shapes
from engine.errors import BundleError, DeviceError
from engine.memory import room_for
from engine.stepgraph import Program

__all__ = ["PAIRS", "DeviceStep", "StepBuffers", "Timeline", "Values"]

WARM_UPS: Final = 2  # runs of each direction; CUDA graphs are captured in one of them
PAIRS: Final = {"state": "next_state", "row": "next_row"}  # input -> the output that becomes it


class Timeline(Protocol):
    """The order of what a device does: marks in it, and how to wait for one."""

    def mark(self) -> object:
        """Note where the device's queue ends now."""
        ...

    def wait(self, mark: object) -> None:
        """Return when the device has come to the mark."""
        ...


class Values(Protocol):
    """Memory of a device."""

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Allocate a value; what is in it is not known."""
        ...

    def put(self, value: Any, array: Array) -> None:
        """Copy an array of the value's own shape and dtype into it; done when it returns."""
        ...

    def get(self, value: Any) -> Array:
        """Copy a value into an array of the caller's own."""
        ...


class StepBuffers:
    """What a step graph reads and writes, allocated once. place: the graph, within its bundle.

    dtypes: of the graph's inputs. shapes: of all that is known. turns: outputs take turns as
    inputs; otherwise whoever runs a step copies them back (`carried`).
    """

    def __init__(
        self,
        values: Values,
        dtypes: Mapping[str, type[np.generic]],
        shapes: Shapes,
        place: str,
        *,
        turns: bool = True,
    ) -> None:
        self.values = values
        self.turns = turns
        self.shapes = dict(shapes)
        self.place = place
        self._dtypes = dict(dtypes)
        unknown = sorted(dtypes.keys() - shapes.keys())
        if unknown:
            raise BundleError(f"{place} has an input '{unknown[0]}' that nothing is known of")
        self._inputs = {name: values.empty(shapes[name], each) for name, each in dtypes.items()}
        self._others = {name: values.empty(shapes[name], dtypes[name]) for name in PAIRS}
        self._denoised = values.empty((1, *shapes["state"][1:]), np.float32)

    def bound(self, which: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the inputs and outputs of the steps of even (0) or odd (1) number."""
        which = which if self.turns else 0
        mine = {name: self._inputs[name] for name in PAIRS}
        sides = (mine, self._others)
        outputs = {PAIRS[name]: value for name, value in sides[1 - which].items()}
        return self._inputs | sides[which], outputs | {"denoised": self._denoised}

    def carried(self) -> list[tuple[Any, Any, int]]:
        """Give what is to be copied back behind a step, to, from, bytes; nothing with turns."""
        if self.turns:
            return []
        return [
            (
                self._inputs[name],
                self._others[name],
                math.prod(self.shapes[name]) * np.dtype(self._dtypes[name]).itemsize,
            )
            for name in PAIRS
        ]

    def put(self, program: Program) -> None:
        """Upload a trajectory. Raises DeviceError where it does not fit the buffers."""
        given: Mapping[str, Array] = {
            "state": program.state,
            "row": np.zeros(1, np.int64),
            "table": program.table,
            "noise": program.noise,
            "mix": program.mix,
            **program.inputs,
        }
        arrays = {name: self._fitted(name, given) for name in self._inputs}
        for name, array in arrays.items():
            self.values.put(self._inputs[name], array)

    def clear(self) -> None:
        """Upload zeros."""
        for name, dtype in self._dtypes.items():
            self.values.put(self._inputs[name], np.zeros(self.shapes[name], dtype))

    def rewind(self, which: int) -> None:
        """Go back to the table's first row, beyond whose end a row must not count."""
        inputs, _ = self.bound(which)
        self.values.put(inputs["row"], np.zeros(1, np.int64))

    def latents(self, which: int) -> NDArray[np.float32]:
        """Copy the latents f32[P, 4, h, w] that the step of this number would begin with."""
        inputs, _ = self.bound(which)
        return self.values.get(inputs["state"])[0].astype(np.float32)

    def denoised(self) -> NDArray[np.float32]:
        """Copy the newest prediction f32[P, 4, h, w]."""
        return self.values.get(self._denoised)[0].astype(np.float32)

    def _fitted(self, name: str, given: Mapping[str, Array]) -> Array:
        if name not in given:
            raise BundleError(f"{self.place} has an input '{name}' that nothing is known of")
        array, shape = given[name], self.shapes[name]
        if array.shape != shape:
            raise DeviceError(
                f"input '{name}' has shape {array.shape}; the step was loaded for {shape}"
            )
        return array.astype(self._dtypes[name], copy=False)


class DeviceStep:
    """The step graph with its buffers, ready. runs: how often it ran; graphs: as CUDA graphs.

    run(which) asks the device for a step of even or odd number. library: for errors. prepare: is
    called before each trajectory, and may run steps.
    """

    def __init__(
        self,
        library: str,
        buffers: StepBuffers,
        run: Callable[[int], None],
        timeline: Timeline,
        *,
        graphs: bool,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.buffers = buffers
        self.run = run
        self.graphs = graphs
        self.runs = 0
        self._library = library
        self._timeline = timeline
        self._prepare = prepare
        self._marks: list[object] = []
        self._at = 0  # steps of this trajectory that were asked for
        self._warm_up()

    def begin(self, program: Program) -> None:
        """Upload a trajectory. Raises DeviceError where it does not fit the buffers."""
        self.wait(0)
        self._prepare()
        self.buffers.put(program)
        self._at = 0

    def enqueue(self) -> None:
        """Ask for one more step; the device may still be busy with earlier ones."""
        self._run(self._at % 2)
        self._at += 1
        self._marks.append(self._timeline.mark())

    def wait(self, left: int) -> None:
        """Wait until at most `left` of the steps that were asked for are not done."""
        while len(self._marks) > left:
            self._timeline.wait(self._marks.pop(0))

    def denoised(self) -> NDArray[np.float32]:
        """Copy the newest prediction f32[P, 4, h, w], once all steps asked for are done."""
        self.wait(0)
        return self.buffers.denoised()

    def latents(self) -> NDArray[np.float32]:
        """Copy the latents f32[P, 4, h, w] after all steps that were asked for."""
        self.wait(0)
        return self.buffers.latents(self._at % 2)

    def _warm_up(self) -> None:
        """Run both directions on zeros until kernels are chosen and graphs captured."""
        self.buffers.clear()
        for which in (0, 1) * WARM_UPS:
            self.buffers.rewind(which)
            self._run(which)
            self._timeline.wait(self._timeline.mark())

    def _run(self, which: int) -> None:
        self.runs += 1
        place = self.buffers.place
        try:
            with room_for(self._library, place, self.buffers.shapes):
                self.run(which)
        except (BundleError, DeviceError):
            raise
        except Exception as error:  # the libraries' classes have no root of their own
            raise DeviceError(
                f"{self._library} failed on {place}: {type(error).__name__}",
                hint="generate again; the driver's log (dmesg) may say more",
            ) from error
