"""Runs a checkpoint that was never exported: the libraries' own modules behind the engine's seam.

The modules are those that an export traces (`export.modules`), filled by the exporter's own reading
of the weights, one at a time and straight in the precision that is computed in.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from engine.backends.torchgraph import ANGLES
from engine.errors import BundleError
from engine.memory import room_for
from export.errors import SourceError
from export.modules import build_module
from export.parameters import matched, read_weight

if TYPE_CHECKING:
    from engine.backends import Libraries, Session, Shapes
    from engine.backends.torch import TorchBackend
    from engine.bundle import Bundle
    from export.checkpoint import Checkpoint
    from export.recipes import Part

__all__ = ["CheckpointBackend"]

FAMILY: Final = ("diffusers", "transformers")  # named in records beside torch


class CheckpointBackend:
    """Loads the components of one checkpoint as modules, and other bundles as `within` does.

    within: what computes. bundle: describes the checkpoint; its components stand in no file, and
    are asked for by the paths that their graphs would have.
    """

    def __init__(self, within: "TorchBackend", checkpoint: "Checkpoint", bundle: "Bundle") -> None:
        self.name: Final = within.name
        self.device: Final = within.device
        self.precision: Final = within.precision
        self.libraries: Libraries = (
            *within.libraries,
            *((name, version(name)) for name in FAMILY),
        )
        self._within = within
        self._checkpoint = checkpoint
        self._bundle = bundle
        self._parts = {bundle.path / part.file: part for part in checkpoint.recipe.components}

    def load(self, model: Path, shapes: "Shapes", *, identity: str = "") -> "Session":
        """Build a component's module and fill it. Raises BundleError for weights that do not fit
        their configuration or cannot be read, DeviceError.
        """
        part = self._parts.get(model)
        if part is None:  # of a bundle beside it: a refiner, an upscaler
            return self._within.load(model, shapes, identity=identity)
        try:
            with room_for("torch", part.name, shapes), torch.inference_mode():
                module = self._module(part)
        except SourceError as error:
            raise BundleError(str(error), hint=error.hint) from error
        except (OSError, SafetensorError) as error:
            raise BundleError(
                f"the weights of {part.folder} cannot be read: {type(error).__name__}",
                hint="the checkpoint was changed or went away after it was opened",
            ) from error
        inputs = self._bundle.manifest.components[part.name].inputs
        outputs = tuple(port.name for port in part.outputs)
        called = _called(module, part, self._within.dtype)
        return self._within.session(model, called, inputs, outputs, shapes)

    def exact(self) -> "CheckpointBackend":
        """Give the same device in fp32."""
        if self.precision == "fp32":
            return self
        return CheckpointBackend(self._within.exact(), self._checkpoint, self._bundle)

    def _module(self, part: "Part") -> nn.Module:
        """Give the module of a part on the device. What its weights' file has for another part,
        as the encoder's half of a VAE, stays without memory.
        """
        module: Any = build_module(
            part.module, self._checkpoint.configs[part.folder], FakeTensorMode()
        )
        shapes = {
            name: tuple(parameter.shape)
            for name, parameter in module.net.named_parameters()
            if name.startswith(part.prefixes or "")
        }
        stored = self._checkpoint.tensors[part.folder]
        for name, tensor in matched(part, shapes, stored).items():
            value = torch.from_numpy(read_weight(tensor).copy()).reshape(shapes[name])
            _put(module.net, name, self._placed(value))
        for owner in module.modules():
            for name, buffer in owner.named_buffers(recurse=False):
                setattr(owner, name, buffer.to(self._within.place))
        return module

    def _placed(self, value: Tensor) -> nn.Parameter:
        # Convolutions with their channels last, which their outputs then have.
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        placed = value.to(self._within.place, self._within.dtype, memory_format=layout)
        return nn.Parameter(placed, requires_grad=False)


def _put(net: nn.Module, name: str, value: nn.Parameter) -> None:
    holder, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(holder), leaf, value)


def _called(module: nn.Module, part: "Part", dtype: torch.dtype) -> "Callable[..., Any]":
    """Wrap a module as a function of its inputs in order, f32 or whole numbers, that gives a tuple.

    Numbers that become angles stay f32: fp16 has steps of half a radian at 999.
    """
    narrowed = [port.name not in ANGLES and port.dtype.startswith("float") for port in part.inputs]

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = (
            each.to(dtype) if narrow else each
            for each, narrow in zip(inputs, narrowed, strict=True)
        )
        found = module(*given)
        return found if isinstance(found, tuple) else (found,)

    return call
