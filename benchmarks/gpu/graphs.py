"""The networks that are measured: pocket's own, and public architectures with random weights.

numpy is all that this takes: graphs come from `skeletons/`, weights from a generator, and pocket's
from its bundle.
"""

import gzip
import json
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.onnxgraph import read_onnx_graph

__all__ = ["MODELS", "Model", "graph_of", "inputs_of", "shapes_of"]

SKELETONS = Path(__file__).with_name("skeletons")
POCKET = Path(__file__).parents[2] / "safelight" / "models" / "pocket" / "unet"
NOISE = 1 << 24  # numbers of a normal distribution; every weight is a piece of them
ALIGNED = 4096  # bytes, as `skeletons` lays weights
DTYPES = {"FLOAT16": np.float16, "FLOAT": np.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A unet to measure. side: of its pictures in pixels. tokens, width: of what it reads."""

    name: str
    side: int
    tokens: int
    width: int
    pooled: int = 0


MODELS: Mapping[str, Model] = {
    each.name: each
    for each in (
        Model(name="tiny", side=64, tokens=20, width=32),
        Model(name="pocket", side=128, tokens=32, width=128),
        Model(name="sd15", side=512, tokens=77, width=768),
        Model(name="sdxl", side=1024, tokens=77, width=2048, pooled=1280),
    )
}


def shapes_of(model: Model, pictures: int) -> dict[str, tuple[int, ...]]:
    """Give the unet's inputs for so many pictures with guidance: two texts a picture."""
    count, side = 2 * pictures, model.side // 8
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (count, 4, side, side),
        "timestep": (),
        "encoder_hidden_states": (count, model.tokens, model.width),
    }
    if model.pooled:
        shapes |= {"text_embeds": (count, model.pooled), "time_ids": (count, 6)}
    return shapes


def inputs_of(model: Model, pictures: int) -> dict[str, NDArray[np.float32]]:
    """Draw inputs; the same for every row."""
    draw = np.random.default_rng(11)
    arrays = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in shapes_of(model, pictures).items()
    }
    arrays["timestep"] = np.array(500.0, np.float32)
    if model.pooled:
        arrays["time_ids"] = np.full_like(arrays["time_ids"], model.side)
    return arrays


def graph_of(model: Model, form: str, work: Path) -> Path:
    """Give the .onnx file of a unet in a form: plain, fused (fp16, for ONNX Runtime's CUDA
    provider), typed (fp16, for TensorRT), or the step graph of one: plain-step...

    pocket's plain graph is the one in the box. All others are unpacked into `work`, where their
    weights are drawn, or pocket's brought into the form, unless an earlier call has. Raises
    LookupError where there is no such graph.
    """
    if model.name == "pocket" and form == "plain":
        return POCKET / "model.onnx"
    base, _, step = form.partition("-")
    folder = work / f"{model.name}-{base}"
    file = folder / ("step.onnx" if step else "model.onnx")
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        graph = _skeleton(f"{model.name}-unet-{form}")["graph"]
        data = folder / "model.onnx_data"
        if not data.exists():
            _write_data(model, base, data)
        file.write_bytes(graph.encode("latin-1"))
    return file


def _skeleton(name: str) -> dict[str, Any]:
    path = SKELETONS / f"{name}.json.gz"
    if not path.exists():
        raise LookupError(f"there is no {path.name}: python -m benchmarks.gpu.skeletons makes it")
    return json.loads(gzip.decompress(path.read_bytes()))


def _write_data(model: Model, base: str, file: Path) -> None:
    if model.name == "pocket" and base == "plain":
        partial = file.with_name(f"{file.name}.partial")
        shutil.copyfile(POCKET / file.name, partial)
        partial.rename(file)
        return
    weight = _of_pocket() if model.name == "pocket" else _of_noise()
    _write_weights(_skeleton(f"{model.name}-unet-{base}")["weights"], file, weight)


Weight = Callable[[str, tuple[int, ...]], NDArray[Any]]


def _of_noise() -> Weight:
    """Give weights of the size that keeps activations near 1, by their names: a form that stores
    one otherwise gets the same numbers.
    """
    noise = np.random.default_rng(5).standard_normal(NOISE, dtype=np.float32)
    return lambda name, shape: _weight(name, shape, noise)


def _of_pocket() -> Weight:
    """Give pocket's own weights, in the order of axes that a form stores them in."""
    stored = read_onnx_graph(POCKET / "model.onnx").weights

    def weight(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        base, _, how = name.partition("/")
        array = stored[base]
        array = array.transpose(0, 2, 3, 1) if how == "nhwc" else array
        if array.shape != shape:
            raise LookupError(f"pocket's '{base}' is not what its skeleton was made of")
        return array

    return weight


def _write_weights(weights: list[list[Any]], file: Path, weight: Weight) -> None:
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as out:
        for name, dtype, shape, offset in weights:
            out.seek(offset)
            out.write(weight(name, tuple(shape)).astype(DTYPES[dtype]).tobytes())
        out.write(bytes(-out.tell() % ALIGNED))
    partial.rename(file)


def _weight(name: str, shape: tuple[int, ...], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    turned = name.endswith("/nhwc")
    base = name.partition("/")[0]
    if len(shape) == 1:
        value = 1.0 if "norm" in base and base.endswith("weight") else 0.0
        return np.full(shape, value, np.float32)
    stored = (shape[0], shape[3], shape[1], shape[2]) if turned else shape
    count = math.prod(stored)
    start = zlib.crc32(base.encode()) % NOISE
    numbers = np.resize(np.roll(noise, -start) if count > NOISE - start else noise[start:], count)
    scaled = (numbers / np.float32(math.sqrt(math.prod(stored[1:])))).reshape(stored)
    return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1)) if turned else scaled
