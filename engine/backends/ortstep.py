"""The step graph in ONNX Runtime: a binding for each direction, and its run options."""

from collections.abc import Callable
from typing import Any, Final

from engine.backends import Shapes
from engine.backends.devicestep import DeviceStep, StepBuffers, Timeline
from engine.backends.ortvalues import DTYPES, OrtValues
from engine.memory import room_for

__all__ = ["Carry", "OrtRuns", "open_step"]

Carry = Callable[[int, int, int], None]  # to, from: addresses on the device; bytes

LIBRARY: Final = "ONNX Runtime"


def open_step(  # noqa: PLR0913  what a session is made of, each used once
    ort: Any,
    session: Any,
    shapes: Shapes,
    values: OrtValues,
    timeline: Timeline,
    *,
    graphs: bool,
    place: str = "unet/step.onnx",
    carry: Carry | None = None,
) -> DeviceStep:
    """Give the step graph, bound and warm.

    session: of a step graph with fixed sizes. shapes: of all inputs. graphs: the provider captures
    CUDA graphs. timeline: of the stream that the session runs on. carry: copies on that stream, for
    a provider that captures one graph and no second one for the way back.
    """
    dtypes = {port.name: DTYPES[port.type] for port in session.get_inputs()}
    with room_for(LIBRARY, place, shapes):
        buffers = StepBuffers(values, dtypes, shapes, place, turns=carry is None)
    runs = OrtRuns(ort, session, buffers, graphs=graphs, carry=carry)
    return DeviceStep(LIBRARY, buffers, runs, timeline, graphs=graphs)


class OrtRuns:
    """Runs the session over the buffers in one of their two directions; nothing is waited for."""

    def __init__(
        self,
        ort: Any,
        session: Any,
        buffers: StepBuffers,
        *,
        graphs: bool,
        carry: Carry | None = None,
    ) -> None:
        self.session = session
        self._carry = carry
        self._carried = [
            (to.data_ptr(), source.data_ptr(), size) for to, source, size in buffers.carried()
        ]
        self._ways: list[tuple[Any, Any]] = []
        for which in (0, 1) if buffers.turns else (0,):
            binding = session.io_binding()
            inputs, outputs = buffers.bound(which)
            for name, value in inputs.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in outputs.items():
                binding.bind_ortvalue_output(name, value)
            options = ort.RunOptions()
            if graphs:
                options.add_run_config_entry("gpu_graph_id", str(which + 1))
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            self._ways.append((binding, options))

    def __call__(self, which: int) -> None:
        """Ask for a step."""
        self.session.run_with_iobinding(*self._ways[which % len(self._ways)])
        if self._carry is not None:
            for to, source, size in self._carried:
                self._carry(to, source, size)
