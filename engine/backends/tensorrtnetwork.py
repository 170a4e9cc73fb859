"""A TensorRT plan on a card: memory for its tensors, and a CUDA graph of each way to run it.

NVIDIA's packages `tensorrt` and `cuda-bindings` do all; `unverified on hardware`, every name was
looked up in the real bindings.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.backends import Array, Shapes
from engine.backends.cudadevice import CudaDevice
from engine.backends.tensorrtrefit import Exchange, Refit
from engine.errors import BundleError, DeviceError

__all__ = ["CudaValue", "CudaValues", "LoadedPlan", "Network"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaValue:
    """Memory on a card: its address, and what lies there."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def bytes(self) -> int:
        """Count its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class CudaValues:
    """Allocates, fills and reads memory of a card; all is freed with this object."""

    def __init__(self, card: CudaDevice) -> None:
        self._card = card
        self._held: list[int] = []
        self.allocations = self.uploads = self.downloads = 0
        weakref.finalize(self, _free, card, self._held)

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> CudaValue:
        """Allocate a value; what is in it is not known."""
        self.allocations += 1
        kind = np.dtype(dtype)
        self._card.take()
        size = max(1, math.prod(shape) * kind.itemsize)
        address = int(self._card.call("cudaMalloc", size))
        self._held.append(address)
        return CudaValue(address=address, shape=tuple(shape), dtype=kind)

    def put(self, value: CudaValue, array: Array) -> None:
        """Copy an array of the value's own shape and dtype into it; done when it returns."""
        self.uploads += 1
        whole = np.ascontiguousarray(array)
        self._card.copy_up(value.address, whole.ctypes.data, value.bytes)

    def get(self, value: CudaValue) -> Array:
        """Copy a value into an array of the caller's own."""
        self.downloads += 1
        array: Array = np.empty(value.shape, value.dtype)
        self._card.copy_down(array.ctypes.data, value.address, value.bytes)
        return array


def _free(card: CudaDevice, held: Sequence[int]) -> None:
    for address in held:
        card.call("cudaFree", address)


class LoadedPlan:
    """A plan on the card. engine: TensorRT's. refit: exchanges its weights; None for a plan that is
    not asked to. place: the plan, within its bundle.

    Raises DeviceError for a plan of another card or TensorRT.
    """

    def __init__(
        self,
        trt: Any,
        logger: Any,
        card: CudaDevice,
        plan: bytes,
        place: str,
        *,
        refits: bool = False,
    ) -> None:
        card.take()
        self.trt = trt
        self.place = place
        self._runtime = trt.Runtime(logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceError(
                f"TensorRT cannot load {place}: it is of another card or version",
                hint="`safelight export NAME --target tensorrt` makes it anew",
            )
        self.engine = engine
        self.refit = Refit(trt, logger, engine, place) if refits else None


class Network:
    """A plan at fixed shapes. inputs, outputs: name -> (shape, dtype), in the plan's order.

    exchange: the weights that it computes with, where several bundles share the plan.
    """

    def __init__(
        self,
        card: CudaDevice,
        plan: LoadedPlan,
        shapes: Shapes,
        exchange: Exchange | None = None,
    ) -> None:
        """Raises BundleError for shapes that the plan was not built for, and as `Refit.wear`."""
        trt, engine, place = plan.trt, plan.engine, plan.place
        self._card = card
        self._place = place
        self._plan = plan
        self._exchange = exchange
        self._version = 0
        card.take()
        self._engine = engine
        self.dress()
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"TensorRT has no memory on the card to run {place}")
        self.inputs: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
        self.outputs: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in given:
            self._set_shape(name, shapes)
        for name in names:
            shape = tuple(int(side) for side in self._context.get_tensor_shape(name))
            if any(side < 0 for side in shape):
                raise BundleError(f"{place} gives '{name}' of no fixed shape")
            kind: type[np.generic] = trt.nptype(engine.get_tensor_dtype(name))
            (self.inputs if name in given else self.outputs)[name] = (shape, kind)

    @property
    def dressed(self) -> bool:
        """Say whether the plan has this network's weights now."""
        refit = self._plan.refit
        return refit is None or self._exchange is None or refit.wears(self._exchange)

    def dress(self) -> bool:
        """Give the plan this network's weights, where another bundle's are in it. Says whether any
        were exchanged since the last call: what was captured before is to be captured anew.
        Raises as `Refit.wear`.
        """
        refit = self._plan.refit
        if refit is None or self._exchange is None:
            return False
        if not refit.wears(self._exchange):
            self._card.synchronise()  # nothing may run on it meanwhile
            refit.wear(self._exchange)
        exchanged = refit.version != self._version
        self._version = refit.version
        return exchanged

    def run(self, values: Mapping[str, CudaValue]) -> None:
        """Ask the card to compute on these values."""
        for name, value in values.items():
            if not self._context.set_tensor_address(name, value.address):
                raise DeviceError(f"TensorRT does not take the memory for '{name}'")
        if not self._context.execute_async_v3(self._card.stream):
            raise DeviceError(f"TensorRT failed on {self._place}")

    def captured(self, values: Mapping[str, CudaValue]) -> Callable[[], None]:
        """Capture a run on these values; gives what replays it. The run itself is made once before,
        since TensorRT prepares itself in it.
        """
        self.run(values)
        self._card.synchronise()
        return self._card.capture(lambda: self.run(values))

    def _set_shape(self, name: str, shapes: Shapes) -> None:
        if name not in shapes:
            raise BundleError(f"{self._place} has an input '{name}' that nothing is known of")
        shape = shapes[name]
        rank = len(self._engine.get_tensor_shape(name))
        if shape == () and rank == 1:
            shape = (1,)
        if not self._context.set_input_shape(name, tuple(shape)):
            raise BundleError(
                f"the plan {self._place} was not built for '{name}' of {list(shape)}",
                hint="`safelight export NAME --target tensorrt --shape WIDTHxHEIGHT` builds one",
            )
