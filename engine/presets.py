"""Presets of speed: fields of a request that trade likeness to the exact picture for time.

What a preset chooses stands in the request, and so in the record, as plain fields. The numbers in
here were chosen on pocket by PSNR a second won: engine/DESIGN.md has the table.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.errors import unknown_name

if TYPE_CHECKING:
    from engine.manifest import Manifest

__all__ = ["EXACT", "PRESETS", "preset"]

EXACT = "exact"
PRESETS = ("balanced", "draft", EXACT)

NOTHING: Mapping[str, Any] = MappingProxyType({})
OFF = 1.0  # a guidance scale
FEW_STEPS = 10  # a model that asks for so few or fewer was made for them: nothing is left out
QUICK_SAMPLERS = ("deis", "dpmpp_2m", "unipc")  # of second order by memory: they bear few steps
QUICK_SAMPLER = "dpmpp_2m"
TINY_DECODER = "tiny_vae_decoder"


def preset(name: str, manifest: "Manifest", given: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Give the fields of a request that a preset sets for a bundle, none that is in `given`.

    exact: none. balanced: the first steps without guidance, and fewer of them; where the bundle has
    the pair of graphs, deep features are reused and fewer steps left out. draft: more of that, and
    the tiny decoder where the bundle has one. given: what the user chose; a preset sets nothing
    beside it that would not go with it. Raises RequestError for a name that is not in PRESETS.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    if name == EXACT:
        return {}
    fields: dict[str, Any] = {}
    pair = _has_pair(manifest) and not given.get("controls")  # which it does not go with
    if pair:
        fields["reuse_every"] = 2
    if name == "balanced":
        fields |= _steps(manifest, given, 0.75 if pair else 0.6) | {"guidance_start": 0.1}
    else:
        fields |= _steps(manifest, given, 0.35 if pair else 0.3) | {"guidance_start": 0.2}
        if TINY_DECODER in manifest.components:
            fields["decoder"] = "tiny"
    left_out = _beside_the_point(manifest, given)
    return {field: value for field, value in fields.items() if field not in left_out}


def _steps(manifest: "Manifest", given: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Take a share of the bundle's own steps, with a sampler that bears it."""
    steps = manifest.defaults.steps
    sampler = given.get("sampler", manifest.defaults.sampler)
    if steps <= FEW_STEPS or "steps" in given:
        return {}
    fields: dict[str, Any] = {"steps": max(FEW_STEPS // 2, round(share * steps))}
    if sampler in QUICK_SAMPLERS:
        return fields
    return {} if "sampler" in given else fields | {"sampler": QUICK_SAMPLER}


def _beside_the_point(manifest: "Manifest", given: Mapping[str, Any]) -> Collection[str]:
    """Name the fields that the user gave, and those that have no meaning beside them."""
    interval = {"guidance_start", "guidance_end"}
    scale = given.get("guidance_scale", manifest.defaults.guidance_scale)
    without = scale == OFF or manifest.guidance_dim > 0
    return set(given) | (interval if without or interval & set(given) else set())


def _has_pair(manifest: "Manifest") -> bool:
    from engine.reuse import has_pair  # which loads numpy, and `--help` shows the names alone

    return has_pair(manifest)
