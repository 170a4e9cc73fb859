"""Out of memory: how the libraries say it, and what to ask for instead.

OpenVINO and ONNX Runtime raise what they raise for everything else, and only the text differs. The
texts below were seen with OpenVINO 2026.4 and ONNX Runtime 1.32 under a limit of address space, or
stand in their issues (those of cards).
"""

import ctypes
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from engine.cgroups import ControlGroups
from engine.errors import EngineError, OutOfMemoryError

__all__ = ["MIB", "free_memory", "give_back", "requested_bytes", "room_for", "smaller_size"]

MIB: Final = 1 << 20
# Both libraries' own checks, C++ (gcc's, MSVC's), oneDNN, OpenCL, CUDA, Direct3D.
_SAID: Final = re.compile(
    r"failed to allocate|could ?n[o']t allocate|bad_alloc|bad allocation|out of memory"
    r"|out_of_memory|MEM_OBJECT_ALLOCATION_FAILURE|OUT_OF_(HOST|DEVICE|RESOURCES)"
    r"|max size of memory object allocation|CUBLAS_STATUS_ALLOC_FAILED|E_OUTOFMEMORY",
    re.IGNORECASE,
)
_BYTES: Final = re.compile(
    r"(?:allocate (\d{1,18}) bytes|buffer of size (\d{1,18})|requested (\d{1,18}) bytes)",
    re.IGNORECASE,
)
LOOKED_AT: Final = 4096  # characters of a message; those seen have 400


def requested_bytes(error: BaseException) -> int:
    """Say how much memory a library could not get: bytes, 0 if it does not say, -1 if that is not
    what failed.
    """
    text = str(error)[:LOOKED_AT]
    if not isinstance(error, MemoryError) and not _SAID.search(text):
        return -1
    found = _BYTES.search(text)
    return int(next(filter(None, found.groups()))) if found else 0


def free_memory(root: Path = Path("/"), groups: ControlGroups | None = None) -> float:
    """Give the bytes that may be taken without swapping, within the control group's limit; inf
    where nothing tells. root: of /proc.
    """
    room = (groups or ControlGroups()).memory()
    try:
        text = (root / "proc/meminfo").read_text("ascii")
    except (OSError, ValueError):
        return room
    found = re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", text, re.MULTILINE)
    return min(room, int(found[1]) * 1024) if found else room


def give_back() -> None:
    """Let the C library return to the system what was freed, where it can (glibc): it keeps pieces
    below 32 MB, and a network's weights are many of those.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def room_for(library: str, place: str, shapes: Mapping[str, tuple[int, ...]]) -> Generator[None]:
    """Turn what a library raises within, if it is for want of memory, into OutOfMemoryError.

    place: of the model, within its bundle. shapes: of its inputs. Everything else passes.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        requested = requested_bytes(error)
        if requested < 0:
            raise
        more = f": {requested / MIB:,.0f} MiB more were asked for" if requested else ""
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise OutOfMemoryError(
            f"{library} has no memory for {place} with {sizes}{more}",
            hint="a smaller picture takes less; other programs may hold what is missing",
            requested=requested,
        ) from error


def smaller_size(width: int, height: int, *, multiple: int = 64) -> tuple[int, int]:
    """Give the largest size of about the same shape with at most half of the pixels.

    Of what a network holds, part grows with the pixels and part with their square: half of the
    pixels takes at most half of the memory. Below twice `multiple` there is nothing smaller to
    offer, and the size itself comes back.
    """
    if min(width, height) < 2 * multiple:
        return width, height
    share = 0.5**0.5
    smaller = tuple(
        max(multiple, int(side * share) // multiple * multiple) for side in (width, height)
    )
    return smaller[0], smaller[1]
