"""PyTorch: runs a bundle's own graphs, on a processor or an NVIDIA card, without an export for it.

The yardstick that the other back ends are held against, and what a machine with torch alone can
run. Each graph becomes a module of torch's own functions (`engine.backends.torchgraph`); weights
are the bundle's. Modules of another make, as of a checkpoint that was never exported, come in by
`TorchBackend.session`. On cards it is `unverified on hardware`.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.backends.buffers import fill
from engine.backends.torchgraph import build_module
from engine.errors import BundleError, DeviceError, EngineError
from engine.manifest import TensorSpec
from engine.memory import room_for
from engine.onnxgraph import read_onnx_graph

__all__ = ["TorchBackend", "TorchSession", "runtime"]

DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# What runs many times.
GRAPHED: Final = ("unet", "unet_control", "unet_deep", "unet_shallow", "unet_thin")
WARM_UPS: Final = 3  # runs before a CUDA graph is captured, as torch's notes on CUDA graphs say


def runtime() -> Any:
    """Import `torch`. Raises DeviceError without it."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"torch cannot be loaded: {error}", hint="pip install torch, or --device cpu"
        ) from error


class TorchBackend:
    """Runs components in torch.

    precision: fp32, bf16 or fp16, the last on cards alone. device: cpu, cuda or cuda:1; DeviceError
    where torch finds none. compiles: by torch.compile, which takes minutes and is repeated by each
    process. graphs: the unet is captured as a CUDA graph.
    """

    def __init__(
        self,
        precision: str,
        device: str = "cpu",
        *,
        compiles: bool = False,
        graphs: bool = False,
    ) -> None:
        torch = self._torch = runtime()
        on_card = device.startswith("cuda")
        if on_card and not torch.cuda.is_available():
            raise DeviceError(
                "torch finds no NVIDIA card that it can use",
                hint="--device torch:CPU; or a build of torch for CUDA and the driver are missing",
            )
        number = int(device.partition(":")[2] or 0)
        if on_card and number >= torch.cuda.device_count():
            raise DeviceError(f"there is no NVIDIA card {number} for torch")
        if precision not in DTYPES or (precision == "fp16" and not on_card):
            where = "a card" if on_card else "the processor"
            raise DeviceError(
                f"torch does not compute in {precision} on {where}",
                hint="--precision fp32 or bf16",
            )
        self.name: Final = "torch"
        self.device: Final = f"cuda:{number}" if on_card else "CPU"
        self.precision: Final = precision
        self.libraries: Libraries = (("torch", str(torch.__version__)),)
        self.dtype: Final[Any] = getattr(torch, DTYPES[precision])
        self.place: Final = f"cuda:{number}" if on_card else "cpu"
        self._compiles = compiles
        self._graphs = graphs and on_card

    @property
    def card(self) -> str:
        """Name the card, or the processor."""
        if self.place == "cpu":
            return "the processor"
        return str(self._torch.cuda.get_device_name(self.place))

    def load(
        self,
        model: Path,
        shapes: Shapes,
        *,
        identity: str = "",  # noqa: ARG002 - nothing is kept
    ) -> "TorchSession":
        """Build the module for these shapes and move it to the device."""
        torch = self._torch
        place = f"{model.parent.name}/{model.name}"
        source = read_onnx_graph(model)
        try:
            with room_for("torch", place, shapes), torch.inference_mode():
                module = build_module(torch, source, shapes, self.dtype)
                module = module.to(self.place).eval()
                _channels_last(torch, module)
        except EngineError:
            raise
        except Exception as error:  # what a graph can do wrong is anything that torch raises
            raise BundleError(
                f"torch cannot build {place}: {type(error).__name__}",
                hint="--device cpu reads the graph by other libraries",
            ) from error
        return self.session(model, module, source.inputs, tuple(source.outputs), shapes)

    def session(
        self,
        model: Path,
        module: Callable[..., Any],
        inputs: Mapping[str, TensorSpec],
        outputs: tuple[str, ...],
        shapes: Shapes,
    ) -> "TorchSession":
        """Give a session of a module on the device, which takes the inputs in their order and gives
        a tuple of the outputs. model: what it computes; not read here.
        """
        torch = self._torch
        if self._compiles:
            module = torch.compile(module, fullgraph=True, dynamic=False)
        buffers: dict[str, Any] = {}
        for name, spec in inputs.items():
            size = (1,) if shapes[name] == () and len(spec.shape) == 1 else shapes[name]
            kind = getattr(torch, spec.dtype)
            buffers[name] = torch.zeros(size, dtype=kind, device=self.place)
        place = f"{model.parent.name}/{model.name}"
        session = TorchSession(torch, module, buffers, outputs, place)
        if self._graphs and model.parent.name in GRAPHED:
            session.capture(WARM_UPS)
        return session

    def exact(self) -> "TorchBackend":
        """Give the same device in fp32."""
        return self if self.precision == "fp32" else TorchBackend("fp32", self.place)

    def memory(self) -> tuple[int, int]:
        """Give the card's free bytes and all of them; zeros on the processor."""
        if self.place == "cpu":
            return 0, 0
        free, total = self._torch.cuda.mem_get_info(self.place)
        return int(free), int(total)

    @property
    def counts_memory(self) -> bool:
        """Say whether torch counts what it holds: on cards."""
        return self.place != "cpu"

    def reset_peak_memory(self) -> None:
        """Let the peak of torch's allocator on this card be what it holds now."""
        self._torch.cuda.reset_peak_memory_stats(self.place)

    def peak_memory(self) -> int:
        """Give the most bytes that torch's allocator held of the card since the last reset: blocks
        that it caches too, since the pools of captured graphs count as these.
        """
        return int(self._torch.cuda.max_memory_reserved(self.place))


class TorchSession:
    """One component with input buffers on the device, and the graph that was captured of it."""

    def __init__(
        self,
        torch: Any,
        call: Callable[..., Any],
        buffers: Mapping[str, Any],
        names: tuple[str, ...],
        place: str,
    ) -> None:
        self._torch = torch
        self._call = call
        self._buffers = dict(buffers)
        self._names = names
        self._place = place
        self._staged: dict[str, Array] = {
            name: np.zeros(tuple(each.shape), str(each.dtype).rpartition(".")[2])
            for name, each in buffers.items()
        }
        self._graph: Any = None
        self._captured: tuple[Any, ...] = ()

    def capture(self, warm_ups: int) -> None:
        """Capture the call as a CUDA graph over the buffers."""
        torch = self._torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(warm_ups):
                self._call(*self._buffers.values())
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            self._captured = self._call(*self._buffers.values())
        self._graph = graph

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output f32."""
        return self._array(self._run(inputs)[0])

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output f32."""
        made = self._run(inputs)
        return {name: self._array(each) for name, each in zip(self._names, made, strict=True)}

    def enqueue(self) -> tuple[Any, ...]:
        """Compute on what lies in the buffers; gives tensors of the device, not waited for."""
        if self._graph is not None:
            self._graph.replay()
            return self._captured
        with self._torch.inference_mode():
            return self._call(*self._buffers.values())

    def _run(self, inputs: Mapping[str, Array]) -> tuple[Any, ...]:
        fill(self._staged, inputs)
        shapes = {name: each.shape for name, each in self._staged.items()}
        try:
            with room_for("torch", self._place, shapes):
                for name, array in self._staged.items():
                    self._buffers[name].copy_(self._torch.from_numpy(array))
                return self.enqueue()
        except EngineError:
            raise
        except RuntimeError as error:
            raise DeviceError(f"torch failed on {self._place}: {type(error).__name__}") from error

    def _array(self, value: Any) -> NDArray[np.float32]:
        array: NDArray[np.float32] = value.float().cpu().numpy()
        return array.copy()


def _channels_last(torch: Any, module: Any) -> None:
    """Lay the weights of convolutions with their channels last, which their outputs then have."""
    for name, buffer in list(module.named_buffers()):
        if buffer.ndim == 4:
            setattr(module, name, buffer.contiguous(memory_format=torch.channels_last))
