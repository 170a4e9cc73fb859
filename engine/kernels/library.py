"""The compiled kernels: one library beside its sources, built with the package or not at all.

It is loaded like code, so only from this folder. Without it nothing is missing but speed.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.cores import physical_cores

__all__ = [
    "FILE",
    "PATHS",
    "VERSION",
    "Attention",
    "Convolution",
    "Kernels",
    "Norm",
    "Tensor",
    "find",
]

VERSION: Final = 6  # of the calls; the library gives its own
FILE: Final = Path(__file__).with_name("safelight_kernels.so")
# What `safelight_path` gives -> its name.
PATHS: Final = ("none", "AVX2", "AVX512_BF16", "AMX bf16")
NARROWEST, WIDEST = 32, 160  # values of a head


class Tensor(ctypes.Structure):
    """bf16 or f32[batch, length, heads, width] in memory; strides in values."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("head", ctypes.c_int64),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("q", Tensor),
        ("k", Tensor),
        ("v", Tensor),
        ("o", Tensor),
        ("batches", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("keys", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("path", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("cpus", ctypes.c_void_p),
        ("cpus_size", ctypes.c_uint64),
    )


class _NormCall(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("gain", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("batches", ctypes.c_int64),
        ("pixels", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("epsilon", ctypes.c_double),
        ("silu", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("cpus", ctypes.c_void_p),
        ("cpus_size", ctypes.c_uint64),
    )


class _ConvolutionCall(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("more", ctypes.c_void_p),
        ("batches", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("doubled", ctypes.c_int32),
        ("half", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("cpus", ctypes.c_void_p),
        ("cpus_size", ctypes.c_uint64),
    )


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Sizes of one 3x3 convolution of x[batches, height, width, inputs] with zeros around it.

    doubled: 1 where x has half of the height and width, and each of its values is four pixels.
    half: 1 where weights are in fp16.
    """

    batches: int
    height: int
    width: int
    inputs: int
    outputs: int
    doubled: int
    half: int


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Sizes of one group normalisation of x[batches, pixels, channels]; silu: what follows it."""

    batches: int
    pixels: int
    channels: int
    groups: int
    epsilon: float
    silu: int


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Sizes of one attention: q[batches, queries, heads, width] and k, v[batches, keys, ...]."""

    batches: int
    heads: int
    queries: int
    keys: int
    width: int
    scale: float


class Kernels:
    """The library, on the best path that this processor has.

    path: 1 for AVX2 (f32 alone), 2 for AVX512_BF16, 3 for AMX; less than the processor
    has is allowed. threads: 0 takes the physical cores that the process may use. Raises OSError
    where there is no library or it is another version's, or nothing in it fits the processor.
    """

    def __init__(self, file: Path = FILE, *, path: int = 0, threads: int = 0) -> None:
        self._library = ctypes.CDLL(str(file))
        version: Any = self._library.safelight_version
        if version() != VERSION:
            raise OSError(f"{file.name} is version {version()}, and {VERSION} is needed")
        best: int = self._library.safelight_path()
        self.path: Final = path or best
        if not 0 < self.path <= best:
            raise OSError("the processor has no AVX2")
        self.threads: Final = threads or physical_cores()
        self._cpus = _cpus()

    @property
    def name(self) -> str:
        """Name the path: AMX bf16, AVX512_BF16 or AVX2."""
        return PATHS[self.path]

    @property
    def has_bf16(self) -> bool:
        """Say whether attention and normalisations can be computed, which want bf16."""
        return self.path > 1

    @property
    def has_avx512(self) -> bool:
        """Say whether the processor has vectors twice as wide as those of the kernels in f32."""
        return bool(self._library.safelight_has_avx512())

    def _check_bf16(self) -> None:
        if not self.has_bf16:
            raise ValueError(f"{self.name} has no bf16: attention and its normalisation want it")

    def attend(
        self,
        sizes: Attention,
        tensors: tuple[Tensor, Tensor, Tensor, Tensor],
        *,
        bf16: bool = True,
    ) -> None:
        """Compute softmax(q k^T scale) v into the last of (q, k, v, o), all bf16 or f32; f32 wants
        heads of a multiple of 8 values. Raises MemoryError, or ValueError for sizes that the kernel
        does not take.
        """
        if bf16:
            self._check_bf16()
        call = _Call(
            *tensors,
            sizes.batches,
            sizes.heads,
            sizes.queries,
            sizes.keys,
            sizes.width,
            sizes.scale,
            self.path,
            self.threads,
            *self._where(),
        )
        run = self._library.safelight_attention if bf16 else self._library.safelight_attention_f32
        _judge(run(ctypes.byref(call)), sizes)

    def normalise(
        self, sizes: Norm, addresses: tuple[int, int, int, int], *, bf16: bool = True
    ) -> None:
        """Normalise bf16 or f32 x into y, at addresses (x, y, gain f32[channels], bias
        f32[channels]); f32 wants a multiple of 8 channels. Raises as `attend` does.
        """
        if bf16:
            self._check_bf16()
        call = _NormCall(
            *addresses,
            sizes.batches,
            sizes.pixels,
            sizes.channels,
            sizes.groups,
            sizes.epsilon,
            sizes.silu,
            self.threads,
            *self._where(),
        )
        run = self._library.safelight_norm if bf16 else self._library.safelight_norm_f32
        _judge(run(ctypes.byref(call)), sizes)

    def convolve(self, sizes: Convolution, addresses: tuple[int, int, int, int, int]) -> None:
        """Convolve f32 x into y, at addresses (x, y, weights, bias f32[batches, outputs], more);
        weights as `winograd` makes them; more: what is added, of y's shape, or 0.
        Raises as `attend` does.
        """
        call = _ConvolutionCall(
            *addresses,
            sizes.batches,
            sizes.height,
            sizes.width,
            sizes.inputs,
            sizes.outputs,
            sizes.doubled,
            sizes.half,
            self.threads,
            *self._where(),
        )
        _judge(self._library.safelight_convolution(ctypes.byref(call)), sizes)

    def _where(self) -> tuple[Any, int]:
        if not self._cpus:
            return None, 0
        return ctypes.cast(self._cpus, ctypes.c_void_p), len(self._cpus)


def find(threads: int = 0) -> tuple[Kernels | None, str]:
    """Give the kernels and the name of their path, or None and why there are none."""
    if not FILE.exists():
        return None, "not built: no C compiler was there when the package was installed"
    try:
        kernels = Kernels(FILE, threads=threads)
    except (OSError, AttributeError) as error:  # damaged, another version's, another processor's
        return None, str(error)
    return kernels, kernels.name


def _judge(state: int, sizes: object) -> None:
    if state == 2:
        raise MemoryError(f"no memory for {sizes}")
    if state:
        raise ValueError(f"sizes that the kernel does not take: {sizes}")


def _cpus() -> Any:
    """Give the processors that the process may use now, as a set of bits: OpenVINO ties the thread
    that computes to one core, and threads of the kernel would inherit that.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    words = max(allowed) // 64 + 1
    bits = sum(1 << number for number in allowed)
    return ctypes.create_string_buffer(bits.to_bytes(words * 8, "little"), words * 8)
