"""Exchanges weights of a plan that is on the card: a LoRA's for the pristine ones, and back.

A plan built with `--refit` names its weights as the graph does that it was made of, which lies
beside it and holds the pristine ones. A bundle to which LoRAs were added has the same graphs and
other weights (`reweighted.json`), so its plan is the base's with these exchanged. `unverified on
hardware`: every name was looked up in the real binding.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.backends import Array
from engine.errors import BundleError, DeviceError
from engine.manifest import MANIFEST_NAME, read_manifest
from engine.onnxgraph import read_onnx_graph

__all__ = ["Exchange", "Refit", "base_of"]

REWEIGHTED: Final = "reweighted"  # the kind of source of a bundle with LoRAs added
HALF: Final = "/half"  # behind the name of a weight that a derived graph rounded
HINT: Final = "`safelight export NAME --target tensorrt` builds a plan of this model alone"


def base_of(model: Path) -> tuple[str, str]:
    """Give name and hash of the bundle that LoRAs were added to, for a component's graph of a
    bundle; '' twice for a bundle of its own. Raises BundleError for a damaged manifest.
    """
    folder = model.parents[1]
    if not (folder / MANIFEST_NAME).is_file():
        return "", ""
    source = read_manifest(folder).source
    return (source.name, source.revision) if source.kind == REWEIGHTED else ("", "")


class Exchange:
    """The weights of one component that one bundle has otherwise than a plan.

    pristine: the graph that the plan was made of. model: the bundle's own graph, None for the
    bundle that the plan was made of. Both are read when they are first needed; what is read is
    mapped from the files.
    """

    def __init__(self, pristine: Path, model: Path | None) -> None:
        self._graph = pristine
        self._model = model

    @cached_property
    def pristine(self) -> Mapping[str, Array]:
        """Give the plan's weights by name. Raises BundleError."""
        return read_onnx_graph(self._graph).weights

    @cached_property
    def changed(self) -> Mapping[str, Array]:
        """Give the weights to put into the plan, in its types. Raises BundleError where the bundle
        has one of another shape.
        """
        if self._model is None:
            return {}
        ours = read_onnx_graph(self._model).weights
        found: dict[str, Array] = {}
        for name, old in self.pristine.items():
            new = ours.get(name.removesuffix(HALF))
            if new is None or old.dtype.kind != "f":
                continue  # a constant that the derived graph brought along
            if new.shape != old.shape:
                raise BundleError(f"the weight '{name}' has another shape than in its base's plan")
            typed = new.astype(old.dtype, copy=False)
            if not np.array_equal(typed, old):
                found[name] = typed
        return found


class Refit:
    """What the engine of one plan wears. place: the plan, within its bundle, for errors.

    version: how often weights were exchanged; a CUDA graph of an earlier one is of the past.
    Raises DeviceError for a plan that was not built for it.
    """

    def __init__(self, trt: Any, logger: Any, engine: Any, place: str) -> None:
        if not engine.refittable:
            raise DeviceError(
                f"the plan {place} was not built to have its weights exchanged",
                hint="`safelight export NAME --target tensorrt --refit` builds one",
            )
        self._trt = trt
        self._refitter = trt.Refitter(engine, logger)
        self._place = place
        self.names: Final = frozenset(str(name) for name in self._refitter.get_all_weights())
        self.version = 0
        self._worn: Exchange | None = None
        self._changed: frozenset[str] = frozenset()  # those that are not pristine

    def wears(self, exchange: Exchange) -> bool:
        """Say whether the engine has these weights now."""
        return self._worn is exchange

    def wear(self, exchange: Exchange) -> None:
        """Give the engine these weights, and the pristine ones wherever it has others.

        No work may be queued on the engine. Raises BundleError, with nothing exchanged, for weights
        that the plan does not name; DeviceError where TensorRT refuses.
        """
        if self._worn is exchange:
            return
        changed = exchange.changed
        unknown = sorted(changed.keys() - self.names)
        if unknown:
            raise BundleError(
                f"the plan {self._place} has {_listed(unknown)} under no name of its own",
                hint=HINT,
            )
        restored = {name: exchange.pristine[name] for name in self._changed - changed.keys()}
        given = restored | dict(changed)
        if given:
            self._exchange(given, exchange.pristine)
            self.version += 1
        self._changed = frozenset(changed)
        self._worn = exchange

    def _exchange(self, given: Mapping[str, Array], pristine: Mapping[str, Array]) -> None:
        self._worn = None  # until all of it is done
        self._changed |= given.keys()
        # Arrays are read by their addresses until the engine has them.
        held = self._set(given)
        missing = [str(name) for name in self._refitter.get_missing_weights()]
        unknown = sorted(name for name in missing if name not in pristine)
        if unknown:
            raise BundleError(
                f"TensorRT joined weights of {self._place} with {_listed(unknown)}, which its graph"
                " does not have",
                hint=HINT,
            )
        held += self._set({name: pristine[name] for name in missing})
        if not self._refitter.refit_cuda_engine():
            raise DeviceError(
                f"TensorRT could not exchange the weights of {self._place}", hint=HINT
            )
        held.clear()

    def _set(self, weights: Mapping[str, Array]) -> list[Array]:
        held: list[Array] = []
        for name, array in weights.items():
            whole = np.asarray(array, order="C")  # of no dimension, too
            held.append(whole)
            if not self._refitter.set_named_weights(name, self._trt.Weights(whole)):
                raise DeviceError(f"TensorRT does not take the weight '{name}' of {self._place}")
        return held


def _listed(names: Iterable[str]) -> str:
    first, *rest = (f"'{name}'" if name else "weights without a name" for name in names)
    return f"{first} and {len(rest)} more" if rest else first
