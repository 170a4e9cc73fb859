"""Finds the stored tensor of every parameter of a part, and reads one at a time.

Nothing here knows of graphs: who runs a checkpoint as it is reads its weights by the same rules as
the exporter.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from export.errors import SourceError
from export.merge import merged
from export.recipes import Part
from export.weightfiles import Tensor

__all__ = ["matched", "precision_of", "read_weight"]

# Checkpoints from before transformers 5 and diffusers 0.18 use older names for the same weights.
OLD_PREFIX = "text_model."
OLD_NAMES = {
    ".to_q.": ".query.",
    ".to_k.": ".key.",
    ".to_v.": ".value.",
    ".to_out.0.": ".proj_attn.",
}
DTYPES = ("BF16", "F16", "F32")
IGNORED = ("embeddings.position_ids",)  # a constant that old text encoders saved


def matched(
    part: Part, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Find the stored tensor of every parameter of `part`, and none left over.

    shapes: parameter -> shape, as the configuration asks for them. Raises SourceError when one is
    missing, has another shape or dtype, or belongs nowhere.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, shape in shapes.items():
        key = next((key for key in _spellings(name) if key in tensors), None)
        if key is None:
            raise SourceError(f"{part.folder} lacks the weight '{name}' that its config asks for")
        tensor = tensors[key]
        used.add(key)
        if tensor.dtype not in DTYPES:
            raise SourceError(f"{part.folder}: '{name}' is {tensor.dtype}; floats are needed")
        if _squeezed(tensor.shape) != _squeezed(shape):
            raise SourceError(
                f"{part.folder}: '{name}' has shape {list(tensor.shape)},"
                f" its config asks for {list(shape)}"
            )
        found[name] = tensor
    for key in tensors:
        mine = key.startswith(part.prefixes) if part.prefixes else True
        if mine and key not in used and not key.endswith(IGNORED):
            raise SourceError(f"{part.folder} has the weight '{key}' that its config does not know")
    return found


def _spellings(name: str) -> list[str]:
    old = name
    for new, former in OLD_NAMES.items():
        old = old.replace(new, former)
    return [name, OLD_PREFIX + name, name.removeprefix(OLD_PREFIX), old]


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    # Old VAEs store the attention's linear layers as 1 x 1 convolutions.
    return shape[:2] if shape[2:] == (1, 1) else shape


def precision_of(tensors: Mapping[str, Tensor]) -> str:
    """Say how most of the weights are stored in a bundle: fp16 when any is, otherwise fp32."""
    return "fp16" if any(tensor.dtype == "F16" for tensor in tensors.values()) else "fp32"


def read_weight(tensor: Tensor) -> NDArray[np.floating]:
    """Read one weight as it is stored, bf16 widened to f32. Nothing else is read of its file."""
    # numpy has no bfloat16: those few come through torch, widened without loss.
    wide = tensor.dtype == "BF16"
    with safe_open(tensor.file, framework="pt" if wide else "np") as opened:
        part = opened.get_slice(tensor.key)
        rows = slice(None) if tensor.rows is None else slice(*tensor.rows)
        stored = part[rows].float().numpy() if wide else part[rows]
    return _changed(stored.T if tensor.transposed else stored, tensor)


def _changed(stored: NDArray[np.floating], tensor: Tensor) -> NDArray[np.floating]:
    """Apply what the person adds, in f32, and round to what the checkpoint has."""
    if tensor.appended is not None:
        stored = np.concatenate([stored, tensor.appended.astype(stored.dtype)])
    return merged(stored, tensor.additions, tensor.key) if tensor.additions else stored
