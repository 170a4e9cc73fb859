"""The parity gate of components that are no part of a picture's chain by themselves: a ControlNet,
and a unet's variants. Inputs are drawn for their ports, equal ones for ports of equal name.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.recipes import Part, Port
from export.runtimes import Run
from export.thin import thinned
from export.variant_modules import added_of, deep_and_sample
from export.variants import DEEP_FEATURE, MID_RESIDUAL

__all__ = ["PART_CALLS", "apart", "draw_inputs", "follow_parts"]

Array = NDArray[np.float32]
Tensors = Mapping[str, torch.Tensor]
TIMESTEP = 481.5  # between two of training's, where Karras' noise levels are
# Of texts. Normal numbers sharpen SD 1.5's attention with random weights until torch's own fp32 is
# 1.4e-4 from its float64; with a tenth it is 1.6e-6, and what a graph does wrong shows above that.
TEXT_SCALE = 0.1
SCALE = 0.75  # of the conditioning; any but 0 and 1 shows where it is applied
RESIDUAL = "_res_sample"  # in the names of all residuals
# Odd and not square: sizes that a graph with a frozen shape would not take.
HEIGHT, WIDTH, BATCH = 23, 26, 2


def apart(part: Part) -> bool:
    """Say whether `follow_parts` measures this component."""
    return bool(part.shares) or part.module == "controlnet"


def draw_inputs(ports: Iterable[Port], sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Draw fixed inputs: normal ones, each seeded by its port's name. sizes: what '@name' means."""
    sides = {"batch": BATCH, "tokens": sizes["token_limit"]}
    for name, side in (("height", HEIGHT), ("width", WIDTH)):
        sides |= {name: side, f"{name}_px": 8 * side}
        sides |= {f"{name}_{factor}": -(-side // factor) for factor in (2, 4, 8)}
    found: dict[str, NDArray[Any]] = {}
    for port in ports:
        shape = [
            size if isinstance(size, int) else sizes[size[1:]] if size[0] == "@" else sides[size]
            for size in port.shape
        ]
        draw = np.random.default_rng(zlib.crc32(port.name.encode()))
        value = draw.standard_normal(shape, dtype=np.float32)
        if port.name == "time_ids":  # pixels
            value = np.round(256 + 64 * value)
        if port.name == "controlnet_cond":  # a picture in 0..1
            value = draw.random(shape, dtype=np.float32)
        if port.name == "encoder_hidden_states":
            value *= TEXT_SCALE
        numbers = {"timestep": TIMESTEP, "conditioning_scale": SCALE}
        found[port.name] = np.asarray(numbers.get(port.name, value), np.float32)
    return found


def follow_parts(
    open_part: Callable[[str], Run],
    parts: Iterable[Part],
    sizes: Mapping[str, int],
    let_go: Callable[[], None],
) -> dict[str, Array]:
    """Run components on fixed inputs, one in memory at a time; give all outputs of each in a row.

    The shallow graph is given what the deep one has just found, so that it owes the whole unet's
    result. One that takes residuals is also run with zeros. let_go: gives memory back.
    """
    results: dict[str, Array] = {}
    feature: Array | None = None
    for part in parts:
        let_go()
        given = draw_inputs(part.inputs, sizes)
        if DEEP_FEATURE in given and feature is not None:
            given[DEEP_FEATURE] = feature
        run = open_part(part.name)
        outputs = run(given)
        feature = outputs.get(DEEP_FEATURE, feature)
        rows = [array.ravel() for array in outputs.values()]
        if MID_RESIDUAL in given:
            plain = {k: np.zeros_like(v) if RESIDUAL in k else v for k, v in given.items()}
            rows += [array.ravel() for array in run(plain).values()]
        results[part.name] = np.concatenate(rows)
        del run
    return results


def _own(x: Tensors) -> tuple[list[torch.Tensor], dict[str, torch.Tensor] | None]:
    own = [x["sample"], x["timestep"], x["encoder_hidden_states"]]
    return own, added_of([x[key] for key in ("text_embeds", "time_ids") if key in x])


def _controlnet(net: Any, x: Tensors) -> tuple[torch.Tensor, ...]:
    own, added = _own(x)
    found = net(
        *own,
        controlnet_cond=x["controlnet_cond"],
        conditioning_scale=float(x["conditioning_scale"]),
        added_cond_kwargs=added,
    )
    return *found.down_block_res_samples, found.mid_block_res_sample


def _unet_control(net: Any, x: Tensors) -> tuple[torch.Tensor, ...]:
    own, added = _own(x)
    *down, middle = (tensor for name, tensor in x.items() if RESIDUAL in name)
    found = net(
        *own,
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    )
    return (found.sample,)


def _unet_deep(net: Any, x: Tensors) -> tuple[torch.Tensor, ...]:
    own, added = _own(x)
    return deep_and_sample(net, lambda: net(*own, added_cond_kwargs=added).sample)


def _unet_shallow(net: Any, x: Tensors) -> tuple[torch.Tensor, ...]:
    # The whole unet: with a fresh feature the shallow graph has to give the same.
    own, added = _own(x)
    return (net(*own, added_cond_kwargs=added).sample,)


def _unet_thin(net: Any, x: Tensors) -> tuple[torch.Tensor, ...]:
    own, added = _own(x)
    with thinned(net):
        return (net(*own, added_cond_kwargs=added).sample,)


PART_CALLS: Mapping[str, Callable[[Any, dict[str, torch.Tensor]], tuple[torch.Tensor, ...]]] = {
    "controlnet": _controlnet,
    "unet_control": _unet_control,
    "unet_deep": _unet_deep,
    "unet_shallow": _unet_shallow,
    "unet_thin": _unet_thin,
}
