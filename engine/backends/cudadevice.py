"""One NVIDIA card through the CUDA runtime: a stream, marks in it, and how much memory is used.

`cuda.bindings.runtime` (the distribution cuda-bindings) is NVIDIA's own binding; it needs no torch.
Every call gives a status and then values. `unverified on hardware`.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final

from engine.errors import DeviceError, OutOfMemoryError

__all__ = ["PIP", "CudaDevice", "cuda_runtime"]

PIP: Final = "pip install 'safelight[cuda]'"
_NO_MEMORY: Final = 2  # cudaErrorMemoryAllocation


def cuda_runtime() -> Any:
    """Import NVIDIA's binding of the CUDA runtime. Raises DeviceError with what installs it."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except Exception as error:  # without the driver it may be ImportError or RuntimeError
        raise DeviceError(
            f"the CUDA runtime cannot be loaded: {type(error).__name__}: {str(error)[:200]}",
            hint=f"{PIP} brings cuda-bindings",
        ) from error


class CudaDevice:
    """A card and one stream of work on it. Raises DeviceError where there is no such card.

    number: as the driver counts. name: the card's, and its compute capability. stream: its address.
    """

    def __init__(self, number: int = 0, cuda: Any = None) -> None:
        """cuda: NVIDIA's binding, imported where none is given."""
        self._cuda = cuda or cuda_runtime()
        self.number: Final = number
        count = int(self.call("cudaGetDeviceCount"))
        if number >= count:
            raise DeviceError(
                f"there is no NVIDIA card {number}; the driver finds {count}",
                hint=f"0 to {count - 1} are there" if count else "--device cpu works",
            )
        self.call("cudaSetDevice", number)
        properties = self.call("cudaGetDeviceProperties", number)
        self.name: Final = f"{properties.name.decode()} sm_{properties.major}{properties.minor}"
        # It does not wait for the default stream, on which ONNX Runtime copies.
        self._stream = self.call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self.stream: Final = int(self._stream)
        self._spare: list[object] = []  # events that were waited for

    def mark(self) -> object:
        """Record an event at the end of the stream."""
        self.take()
        event = (
            self._spare.pop()
            if self._spare
            else self.call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming)
        )
        self.call("cudaEventRecord", event, self._stream)
        return event

    def wait(self, mark: object) -> None:
        """Wait for an event, which is used again."""
        self.call("cudaEventSynchronize", mark)
        self._spare.append(mark)

    def synchronise(self) -> None:
        """Wait for all that the stream was asked for."""
        self.call("cudaStreamSynchronize", self._stream)

    def copy_up(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes from the host's address to the card's, and wait for them."""
        self._copy(to, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_down(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes from the card's address to the host's, and wait for them."""
        self._copy(to, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def copy_across(self, to: int, source: int, size: int) -> None:
        """Ask the stream to copy `size` bytes from one address of the card to another."""
        self.take()
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.call("cudaMemcpyAsync", to, source, size, kind, self._stream)

    def driver(self) -> str:
        """Name the newest CUDA that the driver knows, as 13.0: what compiled models depend on."""
        number = int(self.call("cudaDriverGetVersion"))
        return f"{number // 1000}.{number % 1000 // 10}"

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture what `work` asks the stream for as a CUDA graph; gives what launches it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        self.take()
        self.call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:  # a stream that stays in capture is of no use any more
            graph = self.call("cudaStreamEndCapture", self._stream)
        launched = self.call("cudaGraphInstantiate", graph, 0)
        return lambda: self.call("cudaGraphLaunch", launched, self._stream)

    def _copy(self, to: int, source: int, size: int, kind: object) -> None:
        self.take()
        self.call("cudaMemcpyAsync", to, source, size, kind, self._stream)
        self.synchronise()

    def take(self) -> None:
        """Make this the card that the calling thread speaks to."""
        self.call("cudaSetDevice", self.number)

    def memory(self) -> tuple[int, int]:
        """Give the card's free bytes and all of them."""
        self.take()
        free, total = self.call("cudaMemGetInfo")
        return int(free), int(total)

    def call(self, name: str, *arguments: object) -> Any:
        """Call a function of the runtime; gives what it gives behind the status: a value, several,
        or None. Raises DeviceError, OutOfMemoryError.
        """
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            what = f"{name} failed: {getattr(status, 'name', status)}"
            if int(status) == _NO_MEMORY:
                raise OutOfMemoryError(what, hint="a smaller picture takes less")
            raise DeviceError(what, hint="is the NVIDIA driver loaded and for CUDA 13 or later?")
        return values[0] if len(values) == 1 else tuple(values) or None
