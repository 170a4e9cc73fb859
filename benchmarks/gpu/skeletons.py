"""Graphs of public architectures without their weights, kept beside this file: a machine with torch
or ONNX Runtime alone measures them with random weights, and needs no exporter.

usage: python -m benchmarks.gpu.skeletons FOLDER [--forms] [NAME...]
       (takes the `export` extra, 3 GB and some minutes; FOLDER is worked in)

Of pocket the other forms are kept, whose weights are the bundle's. --forms: plain graphs are taken
as they are kept, and only their other forms are made anew, in seconds.
"""

import gzip
import json
import math
import shutil
import struct
import sys
from collections.abc import Container, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.gpu.graphs import POCKET
from engine.onnxgraph import read_onnx_graph
from export.architectures import SD15, SDXL, TINY
from export.graph import trace
from export.modules import parameter_shapes
from export.recipes import RECIPES, Part
from export.targets.activations import wide_nodes
from export.targets.fusion import fuse
from export.targets.half import open_model, to_half
from export.targets.step_graph import write_step
from export.targets.typed_graph import normalisations
from export.weightfiles import Tensor
from export.weights import DATA_NAME, INLINE_LIMIT, MODEL_NAME, fill

__all__ = ["FOLDER", "main", "write_forms", "write_pocket", "write_skeletons"]

FOLDER = Path(__file__).with_name("skeletons")
ALIGNED = 4096  # bytes, as ONNX asks of weights that are mapped
SIZES = {"token_limit": 77, "unet_channels": 4, "pooled_dim": 1280, "time_ids": 6}
# Name -> family, architecture, component.
PARTS: Mapping[str, tuple[str, Mapping[str, Mapping[str, object]], str]] = {
    "tiny-unet": ("sd1", TINY, "unet"),
    "sd15-unet": ("sd1", SD15, "unet"),
    "sdxl-unet": ("sdxl", SDXL, "unet"),
}


def write_skeletons(work: Path, wanted: list[str]) -> Iterator[str]:
    """Trace each, fuse it, and write the graphs; yields what was written. work: an empty folder."""
    FOLDER.mkdir(exist_ok=True)
    for name in wanted:
        family, architecture, component = PARTS[name]
        recipe = next(each for each in RECIPES if each.family == family)
        part = next(each for each in recipe.components if each.name == component)
        plain = work / name / "plain" / MODEL_NAME
        names = set(parameter_shapes(part, architecture[part.folder]))
        _write(_traced(part, architecture, work), plain, names)
        yield _keep(plain, f"{name}-plain")
        yield from _forms(name, plain, names, work)


def write_forms(work: Path, wanted: list[str]) -> Iterator[str]:
    """Write the other forms of plain graphs that are kept already; as above."""
    for name in wanted:
        family, architecture, component = PARTS[name]
        recipe = next(each for each in RECIPES if each.family == family)
        part = next(each for each in recipe.components if each.name == component)
        kept = json.loads(gzip.decompress((FOLDER / f"{name}-plain.json.gz").read_bytes()))
        plain = work / name / "plain" / MODEL_NAME
        plain.parent.mkdir(parents=True)
        plain.write_bytes(kept["graph"].encode("latin-1"))
        _, dtype, shape, offset = kept["weights"][-1]
        end = offset + math.prod(shape) * ir.DataType[dtype].itemsize
        with (plain.parent / DATA_NAME).open("wb") as data:
            data.truncate(int(end))  # zeros that take no room
        names = set(parameter_shapes(part, architecture[part.folder]))
        yield from _forms(name, plain, names, work)


def write_pocket(work: Path) -> Iterator[str]:
    """Write the graphs of pocket's unet but the plain one, which is in the bundle; as above."""
    plain = work / "pocket-unet" / "plain" / MODEL_NAME
    plain.parent.mkdir(parents=True)
    for file in POCKET.iterdir():
        shutil.copy(file, plain.parent / file.name)
    # The tracer's own constants have no dots in their names, and stay in the graph.
    names = {name for name in read_onnx_graph(plain).weights if "." in name}
    yield from _forms("pocket-unet", plain, names, work)


def _forms(name: str, plain: Path, names: Container[str], work: Path) -> Iterator[str]:
    """Keep the forms of a plain graph, and each one's step graph. What is wide is so by its kind:
    neither random weights of this scale nor pocket's overflow in a unet.
    """
    yield _keep(write_step(plain), f"{name}-plain-step", weights=False)
    for form in ("fused", "typed"):
        file = work / name / form / MODEL_NAME
        model = open_model(plain)
        wide = wide_nodes(model.graph, {})
        if form == "fused":
            fuse(model, wide)
        else:
            wide |= normalisations(model)
        to_half(model, wide)
        _write(model, file, names)
        yield _keep(file, f"{name}-{form}")
        yield _keep(write_step(file), f"{name}-{form}-step", weights=False)


def _traced(part: Part, architecture: Mapping[str, Mapping[str, object]], work: Path) -> ir.Model:
    config = architecture[part.folder]
    levels = len(architecture["unet"]["block_out_channels"])  # pyright: ignore[reportArgumentType]
    sizes = SIZES | {
        "embed_dim": int(str(architecture["unet"]["cross_attention_dim"])),
        "unet_factor": 2 ** (levels - 1),
    }
    model = trace(part, config, sizes)
    shapes = parameter_shapes(part, config)
    zeros = _zeros(shapes, work / "zeros.safetensors")
    fill(
        model,
        {
            name: Tensor(file=zeros, key=name, dtype="F16", shape=shape)
            for name, shape in shapes.items()
        },
    )
    return model


def _zeros(shapes: Mapping[str, tuple[int, ...]], file: Path) -> Path:
    """Write a safetensors file of zeros that takes no room: the tools look into small weights."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + end)
    return file


def _write(model: ir.Model, file: Path, names: Container[str]) -> None:
    """Write the graph with places for its weights, one behind the other, and none of them.

    names: of the weights; what else is small stays in the graph.
    """
    file.parent.mkdir(parents=True)
    offset = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= INLINE_LIMIT and str(value.name).partition("/")[0] not in names:
            continue
        value.const_value = ir.ExternalTensor(
            DATA_NAME,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(value.name),
            base_dir=file.parent,
        )
        offset += -(-tensor.nbytes // ALIGNED) * ALIGNED
    with (file.parent / DATA_NAME).open("wb") as data:
        data.truncate(offset)  # zeros that take no room: the fusions look at some weights
    ir.save(model, file)


def _keep(file: Path, name: str, *, weights: bool = True) -> str:
    data: dict[str, Any] = {"graph": file.read_bytes().decode("latin-1")}
    if weights:
        found = ir.load(file).graph.initializers.values()
        data["weights"] = [
            [value.name, tensor.dtype.name, list(tensor.shape.numpy()), tensor.offset]
            for value in found
            if isinstance(tensor := value.const_value, ir.ExternalTensor)
        ]
    path = FOLDER / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(data).encode(), 9, mtime=0))
    return f"{path.name}: {path.stat().st_size} bytes"


def main() -> None:
    """Write all, or those that are named behind the folder to work in."""
    work, wanted = Path(sys.argv[1]), [each for each in sys.argv[2:] if each != "--forms"]
    wanted = wanted or ["pocket-unet", *PARTS]
    write = write_forms if "--forms" in sys.argv else write_skeletons
    made = write_pocket(work) if "pocket-unet" in wanted else iter(())
    others = [name for name in wanted if name != "pocket-unet"]
    for said in chain(made, write(work, others)):
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
