"""Opens one safetensors file of additions to a model and reads its tensors one by one.

Nothing is kept but names and shapes, and torch is not needed: ml_dtypes teaches numpy bfloat16.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  its import gives numpy the bfloat16 that safetensors asks it for
import numpy as np
from numpy.typing import NDArray

from export.errors import MissingError, SourceError
from export.weightfiles import PICKLES, check_header, refuse_pickle

__all__ = ["TensorFile", "open_tensors", "shown"]

FLOATS = ("BF16", "F16", "F32")
WHOLE = ("I32", "I64")  # some trainers save alpha as a whole number
SHOWN = 100  # characters of a foreign name in a message; the longest real one has 90


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFile:
    """A safetensors file that was looked at. shapes: key -> shape. metadata: its own notes."""

    file: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    def read(self, key: str) -> NDArray[np.float32]:
        """Read one tensor, widened to float32. Raises SourceError when it cannot be read."""
        with _opened(self.file) as opened:
            return opened.get_tensor(key).astype(np.float32)

    def check_finite(self, keys: Iterable[str]) -> None:
        """Read each tensor once. Raises SourceError at the first that holds NaN or Inf."""
        with _opened(self.file) as opened:
            for key in keys:
                if not np.isfinite(opened.get_tensor(key).astype(np.float32)).all():
                    raise SourceError(
                        f"'{shown(key)}' in {self.file.name} holds NaN or Inf",
                        hint="the file is damaged or its training failed: take another one",
                    )


def open_tensors(file: Path) -> TensorFile:
    """Look at a safetensors file. Raises SourceError, and MissingError when it is not there."""
    if file.suffix.lower() in PICKLES:
        raise refuse_pickle(f"'{file.name}'")
    if not file.is_file():
        raise MissingError(f"there is no file '{file.name}'")
    check_header(file)
    shapes: dict[str, tuple[int, ...]] = {}
    with _opened(file) as opened:
        for key in opened.keys():  # noqa: SIM118  a method of the library, no mapping
            part = opened.get_slice(key)
            if part.get_dtype() not in FLOATS + WHOLE:
                raise SourceError(
                    f"'{shown(key)}' in {file.name} is {part.get_dtype()};"
                    f" one of {', '.join(FLOATS)} is needed"
                )
            shapes[key] = tuple(part.get_shape())
        metadata = dict(opened.metadata() or {})
    if not shapes:
        raise SourceError(f"{file.name} holds no tensor")
    return TensorFile(file=file, shapes=shapes, metadata=metadata)


def shown(name: str) -> str:
    """Shorten a name from a file for a message, on one line."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name[:SHOWN])
    return plain if len(name) <= SHOWN else f"{plain}..."


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"{file.name} is damaged or cut short: {error}", hint="fetch that file again"
        ) from error
