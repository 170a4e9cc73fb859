"""Presets of speed: fields of a request that trade likeness to the exact picture for time.

What a preset chooses stands in the request, and so in the record, as plain fields: nothing but the
three names below is hidden in it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.errors import unknown_name

if TYPE_CHECKING:
    from engine.manifest import Manifest

__all__ = ["EXACT", "PRESETS", "preset"]

NOTHING: Mapping[str, Any] = MappingProxyType({})
EXACT = "exact"
PRESETS = ("balanced", "draft", EXACT)

FEW_STEPS = 10  # a model that is made for so few has nothing to leave out
TINY_DECODER = "tiny_vae_decoder"
# Multistep and of second order: of those here the one that needs the fewest evaluations.
QUICK_SAMPLER, QUICK_SCHEDULE = "dpmpp_2m", "trailing"


def preset(
    name: str, manifest: "Manifest", given: Mapping[str, Any] = NOTHING
) -> dict[str, Any]:
    """Give the fields of a request that a preset sets for a bundle, none that is in `given`.

    exact: none. balanced: guidance in the first part of the steps, and deep features reused where
    the bundle has the pair. draft: less guidance, features that grow older, fewer steps, and the
    tiny decoder where the bundle has one. Raises RequestError for a name that is not in PRESETS.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    fields: dict[str, Any] = {}
    if name == "balanced":
        fields = _guidance(manifest, 0.6) | _reuse(manifest, 2)
    elif name == "draft":
        fields = _guidance(manifest, 0.4) | _reuse(manifest, 3) | _few_steps(manifest, given)
        if TINY_DECODER in manifest.components:
            fields["decoder"] = "tiny"
    return {field: value for field, value in fields.items() if field not in given}


def _guidance(manifest: "Manifest", end: float) -> dict[str, Any]:
    """End guidance early, where the network does not take its scale as an input."""
    return {} if manifest.guidance_dim else {"guidance_end": end}


def _reuse(manifest: "Manifest", every: int) -> dict[str, Any]:
    from engine.reuse import has_pair  # which loads numpy, and `--help` shows the names alone

    return {"reuse_every": every} if has_pair(manifest) else {}


def _few_steps(manifest: "Manifest", given: Mapping[str, Any]) -> dict[str, Any]:
    return {}
