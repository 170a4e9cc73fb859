"""Saves tensors so that a kill at any moment leaves the last whole checkpoint: safetensors only."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as save_bytes

from export.errors import ExportError

__all__ = ["Ledger", "forget_origin", "load", "read_json", "save", "write_json"]


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save(path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Write arrays and a JSON header into one safetensors file, atomically."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _replace(path, save_bytes(plain, metadata={"recipe": json.dumps(header, sort_keys=True)}))


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save` wrote: arrays and header."""
    if not path.exists():
        raise ExportError(f"{path.name} is not in {path.parent}", hint="run the stage before first")
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        header = json.loads((file.metadata() or {}).get("recipe", "{}"))
    return arrays, header


def write_json(path: Path, document: object) -> None:
    """Write a JSON file whole or not at all."""
    _replace(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of an earlier stage."""
    if not path.exists():
        raise ExportError(f"{path.name} is not in {path.parent}", hint="run the stage before first")
    return json.loads(path.read_text("utf-8"))


def forget_origin(path: Path) -> None:
    """Drop from a saved configuration the folder that its weights were once loaded from."""
    document = read_json(path)
    if document.pop("_name_or_path", None) is not None:
        write_json(path, document)


class Ledger:
    """The log of losses: one JSON object a line, cut back to the checkpoint when resumed."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self._rows() if line["step"] <= step]
        _replace(path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def _rows(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        for line in self._path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return  # a kill in the middle of a line: the rest is made again

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
