"""Indexes safetensors files: where each weight lies, without reading one. Pickles are refused."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from export.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "HEADER_LIMIT",
    "PICKLES",
    "Addition",
    "Tensor",
    "check_header",
    "header_metadata",
    "index_tensors",
    "refuse_pickle",
]

HEADER_LIMIT = 16 << 20  # bytes of a safetensors header; SDXL's whole file has 0.4 MiB
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
PICKLE_HINT = (
    "save it again with safetensors (diffusers: save_pretrained(..., safe_serialization=True)),"
    " or take the publisher's .safetensors files"
)


class Addition(Protocol):
    """Something that is added to a weight, read when it is needed."""

    def delta(self, stored: "NDArray[np.floating]") -> "NDArray[np.float32]":
        """Give it in the weight's shape. stored: the weight, to which nothing was added."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """Where one weight lies: file, key in it, dtype as safetensors names it, shape of the weight.

    rows: only these of the stored tensor (first, end). transposed: it is stored the other way.
    additions: what is added to it. appended: rows f32[n, width] that come behind the stored ones.
    """

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    transposed: bool = False
    additions: tuple[Addition, ...] = ()
    appended: "NDArray[np.float32] | None" = None


def refuse_pickle(name: str) -> SourceError:
    """Give the error for a pickle: it runs whatever code its maker put inside."""
    return SourceError(
        f"{name} is a pickle: loading it runs whatever code is inside", hint=PICKLE_HINT
    )


def index_tensors(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield (key, Tensor) of every weight in some files. Raises SourceError for a damaged one."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        check_header(file)
        try:
            with safe_open(file, framework="np") as opened:
                for key in opened.keys():  # noqa: SIM118  a method of the library, no mapping
                    part = opened.get_slice(key)
                    shape = tuple(part.get_shape())
                    yield key, Tensor(file=file, key=key, dtype=part.get_dtype(), shape=shape)
        except SafetensorError as error:
            raise SourceError(
                f"{_label(file)} is damaged or cut short: {error}", hint="fetch that file again"
            ) from error


def header_metadata(file: Path) -> Mapping[str, str]:
    """Give the texts that a file's maker wrote into its header, indexed before."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return opened.metadata() or {}


def check_header(file: Path) -> None:
    """Raise SourceError unless a file begins as safetensors do, with a header of bounded size."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length == 0 or length > size - 8:
        raise SourceError(f"{_label(file)} is cut short or is no safetensors file")
    if length > HEADER_LIMIT:
        raise SourceError(f"{_label(file)} has a header of {length} bytes; at most {HEADER_LIMIT}")


def _label(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
