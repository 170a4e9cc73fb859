"""The shared libraries that NVIDIA back ends stand on, opened one by one, each with its pip line.

ONNX Runtime's provider library needs all of them and says of none which one is missing: it prints a
warning and computes on the processor. Opened here first, from NVIDIA's wheels or the system, they
are found when the provider asks for them by name.
"""

import ctypes
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import DeviceError

__all__ = [
    "LIBRARIES",
    "TENSORRT_10",
    "Library",
    "missing_libraries",
    "open_libraries",
    "tensorrt_10_version",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """One shared library. name: as people call it. file: its soname. brings: who brings it.

    optional: TensorRT's, without which the CUDA provider works.
    """

    name: str
    file: str
    brings: str
    optional: bool = False


_PIP: Final = "pip install 'safelight[cuda]' (package {})"
_PIP_10: Final = "pip install 'tensorrt-cu13-libs>=10,<11', with NVIDIA's own index"
# What ONNX Runtime's TensorRT provider needs beside what the CUDA provider needs.
TENSORRT_10: Final = ("nvinfer 10", "nvonnxparser 10")
# In the order in which they need each other: a library that was opened is found by its soname.
LIBRARIES: Final = (
    Library(name="driver", file="libcuda.so.1", brings="the NVIDIA driver, for CUDA 13 or later"),
    Library(name="cudart", file="libcudart.so.13", brings=_PIP.format("nvidia-cuda-runtime")),
    Library(name="cublasLt", file="libcublasLt.so.13", brings=_PIP.format("nvidia-cublas")),
    Library(name="cublas", file="libcublas.so.13", brings=_PIP.format("nvidia-cublas")),
    Library(name="nvrtc", file="libnvrtc.so.13", brings=_PIP.format("nvidia-cuda-nvrtc")),
    Library(name="cufft", file="libcufft.so.12", brings=_PIP.format("nvidia-cufft")),
    Library(name="curand", file="libcurand.so.10", brings=_PIP.format("nvidia-curand")),
    Library(name="cudnn", file="libcudnn.so.9", brings=_PIP.format("nvidia-cudnn-cu13")),
    Library(
        name="nvinfer",
        file="libnvinfer.so.11",
        brings="pip install 'safelight[tensorrt]', with NVIDIA's own index",
        optional=True,
    ),
    Library(
        name="nvinfer 10",
        file="libnvinfer.so.10",
        brings=f"{_PIP_10}, for ONNX Runtime's TensorRT provider alone",
        optional=True,
    ),
    Library(
        name="nvonnxparser 10",
        file="libnvonnxparser.so.10",
        brings=f"{_PIP_10}, for ONNX Runtime's TensorRT provider alone",
        optional=True,
    ),
)


def open_libraries() -> Mapping[str, str]:
    """Open each library and give name -> '' or why it does not open, in one sentence."""
    return {each.name: _open(each) for each in LIBRARIES}


def missing_libraries(found: Mapping[str, str], also: Collection[str] = ()) -> DeviceError | None:
    """Give the error that names the first library which the CUDA provider lacks, or None.

    also: names of optional ones that are needed this time.
    """
    for library in LIBRARIES:
        if found[library.name] and (not library.optional or library.name in also):
            return DeviceError(
                f"the NVIDIA library {library.name} cannot be used: {found[library.name]}",
                hint=f"{library.brings}; --device cpu works without it",
            )
    return None


def tensorrt_10_version() -> str:
    """Ask TensorRT 10 for its version, as 10.13.2, once it is open; '' where it does not say."""
    try:
        number = int(ctypes.CDLL("libnvinfer.so.10").getInferLibVersion())
    except (OSError, AttributeError):
        return ""
    # NvInferVersion.h, NV_TENSORRT_VERSION: major * 10000 + minor * 100 + patch.
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _open(library: Library) -> str:
    if sys.platform != "linux":
        return "it is looked for on Linux alone"
    why = f"{library.file} is not installed"
    for place in (*_in_wheels(library.file), library.file):
        try:
            ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            if "cannot open shared object file" not in str(error) or library.file not in str(error):
                why = str(error)[:300]  # it is there, and something that it needs is not
            continue
        return ""
    return why


def _in_wheels(file: str) -> Iterator[str]:
    """Yield the library's places in NVIDIA's wheels: site-packages/nvidia/*/lib."""
    for entry in sys.path:
        if entry.endswith("-packages"):
            for folder in ("nvidia/*/lib", "tensorrt_libs"):
                for found in sorted(Path(entry).glob(f"{folder}/{file}")):
                    yield str(found)
