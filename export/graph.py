"""Traces one component to an ONNX graph whose weights keep the names of the state dict."""

import inspect
import logging
import warnings
from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from export.errors import GraphError
from export.modules import build_module
from export.recipes import OPSET, Part, Port

__all__ = ["trace"]

PREFIX = "net."  # the wrapper's attribute in front of every state-dict key


def trace(part: Part, config: Mapping[str, object], sizes: Mapping[str, int]) -> ir.Model:
    """Trace `part` with free batch, height and width. Raises GraphError where tracing fails.

    The initialisers of the result carry state-dict keys and no values yet.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    module = build_module(part.module, config, mode)
    with mode:
        examples = tuple(_example(port, sizes) for port in part.inputs)
    free = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.shape) if _is_free(size)}
        for port in part.inputs
    )
    if _is_variadic(module):
        free = (free,)  # all inputs are the one argument *inputs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            captured = torch.export.export(
                module,
                examples,
                dynamic_shapes=free,
                strict=False,  # the strict way takes four times as long for the same graph
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            program = torch.onnx.export(
                captured,
                input_names=[port.name for port in part.inputs],
                output_names=[port.name for port in part.outputs],
                opset_version=OPSET,
                dynamo=True,
                optimize=False,  # it would read the weights, which are not there
                verbose=False,
            )
        except Exception as error:
            raise GraphError(f"{part.name} could not be traced: {error}") from error
    if program is None:
        raise GraphError(f"{part.name} could not be traced")
    return _named(program.model, part, sizes)


def _is_variadic(module: torch.nn.Module) -> bool:
    (*_, last) = inspect.signature(module.forward).parameters.values()
    return last.kind is inspect.Parameter.VAR_POSITIONAL


def _is_free(size: int | str) -> bool:
    return isinstance(size, str) and not size.startswith("@")


def _example(port: Port, sizes: Mapping[str, int]) -> torch.Tensor:
    # Free sizes are traced at values that no network folds away: a batch of 2, and odd latents, so
    # that the up-sampling takes its sizes from the skip connections and any multiple of 8 pixels
    # works (diffusers decides that by looking at the size).
    odd = 2 * sizes["unet_factor"] + 1
    examples = {"batch": 2, "tokens": sizes["token_limit"], "height": odd, "width": odd + 2}
    examples |= {"height_px": 8 * odd, "width_px": 8 * (odd + 2)}
    for factor in (2, 4, 8):  # what strided convolutions make of an odd side
        examples |= {f"height_{factor}": -(-odd // factor)}
        examples |= {f"width_{factor}": -(-(odd + 2) // factor)}
    shape = [
        size if isinstance(size, int) else sizes[size[1:]] if size[0] == "@" else examples[size]
        for size in port.shape
    ]
    return torch.zeros(shape, dtype=getattr(torch, port.dtype))


def _named(model: ir.Model, part: Part, sizes: Mapping[str, int]) -> ir.Model:
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.name is not None and value.name.startswith(PREFIX):
            graph.initializers.pop(value.name)
            value.name = value.name.removeprefix(PREFIX)
            graph.initializers.add(value)
    for value, port in zip(
        (*graph.inputs, *graph.outputs), (*part.inputs, *part.outputs), strict=True
    ):
        value.name = port.name
        value.shape = ir.Shape(
            [
                sizes[size[1:]] if isinstance(size, str) and size[0] == "@" else size
                for size in port.shape
            ]
        )
    return model
