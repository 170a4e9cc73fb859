"""A trajectory in ONNX Runtime by the step graph: one run call a step, nothing else.

Two sets of outputs take turns as inputs, so that no output lies where an input does and all
addresses stay; each of the two bindings is a CUDA graph of its own. The table, all noise and the
texts go up once, latents come down once, and a preview is one more copy when somebody asks for it.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Shapes
from engine.backends.ortvalues import DTYPES, OrtValues
from engine.errors import BundleError, DeviceError, EngineError
from engine.memory import room_for
from engine.stepgraph import Program

__all__ = ["OnnxRuntimeStep", "Timeline"]

WARM_UPS: Final = 2  # runs of each binding; CUDA graphs are captured in one of them
PAIRS: Final = {"state": "next_state", "row": "next_row"}  # input -> the output that becomes it


class Timeline(Protocol):
    """The order of what a device does: marks in it, and how to wait for one."""

    def mark(self) -> object:
        """Note where the device's queue ends now."""
        ...

    def wait(self, mark: object) -> None:
        """Return when the device has come to the mark."""
        ...


class OnnxRuntimeStep:
    """The step graph with its buffers. runs: how often the graph ran.

    session: of a step graph with fixed sizes. shapes: of all inputs. graphs: the provider captures
    CUDA graphs. timeline: of the stream that the session runs on.
    """

    def __init__(  # noqa: PLR0913  what a session is made of, each used once
        self,
        ort: Any,
        session: Any,
        shapes: Shapes,
        values: OrtValues,
        timeline: Timeline,
        *,
        graphs: bool,
        place: str = "unet/step.onnx",
    ) -> None:
        self._session = session
        self._values = values
        self._timeline = timeline
        self._place = place
        self._shapes = dict(shapes)
        self.runs = 0
        self.graphs = graphs
        self._dtypes = {port.name: DTYPES[port.type] for port in session.get_inputs()}
        unknown = sorted(self._dtypes.keys() - self._shapes.keys())
        if unknown:
            raise BundleError(f"{place} has an input '{unknown[0]}' that nothing is known of")
        with room_for("ONNX Runtime", place, shapes):
            self._inputs = {
                name: values.empty(self._shapes[name], dtype)
                for name, dtype in self._dtypes.items()
            }
            outputs = {name: values.empty(self._shapes[name], self._dtypes[name]) for name in PAIRS}
            self._denoised = values.empty((1, *self._shapes["state"][1:]), np.float32)
        first = {name: self._inputs[name] for name in PAIRS}
        self._states = (first["state"], outputs["state"])
        self._rows = (first["row"], outputs["row"])
        self._bindings = (self._bind(first, outputs), self._bind(outputs, first))
        self._options = tuple(_run_options(ort, number, graphs=graphs) for number in (1, 2))
        self._marks: list[object] = []
        self._at = 0  # steps of this trajectory that were asked for
        self._warm_up()

    def begin(self, program: Program) -> None:
        """Upload a trajectory. Raises DeviceError where it does not fit the buffers."""
        self.wait(0)
        given: Mapping[str, Array] = {
            "state": program.state,
            "row": np.zeros(1, np.int64),
            "table": program.table,
            "noise": program.noise,
            "mix": program.mix,
            **program.inputs,
        }
        arrays = {name: self._fitted(name, given) for name in self._inputs}
        self._upload(arrays)
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
        return self._values.get(self._denoised)[0].astype(np.float32)

    def latents(self) -> NDArray[np.float32]:
        """Copy the latents f32[P, 4, h, w] after all steps that were asked for."""
        self.wait(0)
        return self._values.get(self._states[self._at % 2])[0].astype(np.float32)

    def _fitted(self, name: str, given: Mapping[str, Array]) -> Array:
        if name not in given:
            raise BundleError(f"{self._place} has an input '{name}' that nothing is known of")
        array, shape = given[name], self._shapes[name]
        if array.shape != shape:
            raise DeviceError(
                f"input '{name}' has shape {array.shape}; the step was loaded for {shape}"
            )
        return array.astype(self._dtypes[name], copy=False)

    def _upload(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            self._values.put(self._inputs[name], array)

    def _warm_up(self) -> None:
        """Run both bindings on zeros until kernels are chosen and graphs captured."""
        self._upload(
            {name: np.zeros(self._shapes[name], self._dtypes[name]) for name in self._inputs}
        )
        for which in (0, 1) * WARM_UPS:
            self._values.put(
                self._rows[which], np.zeros(1, np.int64)
            )  # it counts on, beyond tables
            self._run(which)
            self._timeline.wait(self._timeline.mark())

    def _bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        binding = self._session.io_binding()
        for name, value in (self._inputs | dict(inputs)).items():
            binding.bind_ortvalue_input(name, value)
        for name, output in PAIRS.items():
            binding.bind_ortvalue_output(output, outputs[name])
        binding.bind_ortvalue_output("denoised", self._denoised)
        return binding

    def _run(self, which: int) -> None:
        self.runs += 1
        try:
            with room_for("ONNX Runtime", self._place, self._shapes):
                self._session.run_with_iobinding(self._bindings[which], self._options[which])
        except EngineError:
            raise
        except Exception as error:  # the library's classes have no root of their own
            raise DeviceError(
                f"ONNX Runtime failed on {self._place}: {type(error).__name__}",
                hint="generate again; the driver's log (dmesg) may say more",
            ) from error


def _run_options(ort: Any, number: int, *, graphs: bool) -> Any:
    options = ort.RunOptions()
    if graphs:
        options.add_run_config_entry("gpu_graph_id", str(number))
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options
