"""Reads a LoRA: what it adds to which weight of a checkpoint, to be merged while exporting.

A LoRA adds `scale * alpha / rank * up @ down` to a weight (Hu et al., arXiv 2106.09685, section
4.1); LoCon does the same for convolutions, with a third factor in Tucker's form (Yeh et al., arXiv
2309.14859). Key styles: kohya-ss/sd-scripts, LyCORIS, diffusers (four ages of it), PEFT, ComfyUI.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import SourceError
from export.lora_alpha import Alphas, read_alphas
from export.lora_names import addresses, locate
from export.tensor_file import TensorFile, open_tensors, shown

__all__ = ["SCALE_LIMIT", "LowRank", "combine", "read_lora"]

SCALE_LIMIT = 10.0  # sliders go to about 5 either way; far beyond there is only noise
Shape = tuple[int, ...]
Weights = Mapping[str, Mapping[str, Shape]]

ROLES = re.compile(
    r"\.lora_(?P<kohya>down|up|mid)\.weight$"
    r"|\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight$"
    r"|[._]lora\.(?P<processor>down|up)\.weight$"
    r"|\.lora_linear_layer\.(?P<linear>down|up)\.weight$"
    r"|(?:[._]lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
)
PEFT_ROLES = {"A": "down", "B": "up"}
# What keys of other additions have in them: LyCORIS' modules, and what PEFT and ComfyUI add.
OTHERS = {
    "DoRA": r"\.dora_scale$|\.lora_magnitude_vector\b",
    "LoHa": r"\.hada_[wt][12]",
    "LoKr": r"\.lokr_[wt][12]",
    "OFT": r"\.b?oft_",
    "IA3": r"\.on_input$|\.ia3_l\b",
    "GLora": r"\.[ab][12]\.weight$",
    "set of whole differences": r"\.diff(_b)?$|\.[wb]_norm$",
    "LoRA with biases": r"\.lora_(B|up)(\.[^.]+)?\.bias$",
    "LoRA of an embedding table": r"\.lora_embedding_[AB]\b",
}
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}  # width of the text the UNet attends to
FAMILY_HINT = "a LoRA fits only the family it was trained for: SD 1.x, SD 2.x or SDXL"
TEXT_KEY = re.compile(r"attn2[._](?:processor[._])?to_[kv]$")


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """One addition to one weight of `shape`: the factors' keys in `source`, left to right."""

    source: TensorFile
    factors: tuple[str, ...]
    scale: float
    shape: Shape

    def delta(self) -> NDArray[np.float32]:
        """Read the factors and multiply them: f32 in the weight's shape, to be added to it.

        Raises SourceError when the file cannot be read or the product is not finite.
        """
        up, *core, down = (self.source.read(key) for key in self.factors)
        left = up.reshape(len(up), -1)  # (out, p)
        right = down.reshape(len(down), -1)  # (rank, in * kernel), or (rank, in) beside a core
        with np.errstate(over="ignore", invalid="ignore"):  # looked at below
            if core:
                whole = np.einsum("op,pqhw,qi->oihw", left, core[0], right, optimize=True)
            else:
                whole = left @ right
            whole = whole.reshape(self.shape) * np.float32(self.scale)
        if not np.isfinite(whole).all():
            raise SourceError(
                f"the factors of '{shown(self.factors[0])}' in {self.source.file.name}"
                " multiply to NaN or Inf"
            )
        return whole


def read_lora(file: Path, scale: float, weights: Weights) -> dict[str, dict[str, LowRank]]:
    """Find what `file` adds, `scale` times: component -> parameter -> addition.

    weights: component (`unet`, `text_encoder`, `text_encoder_2`) -> parameter -> shape. Every key
    must have its place. Raises SourceError for anything else, MissingError for no file.
    """
    if not math.isfinite(scale) or abs(scale) > SCALE_LIMIT:
        raise SourceError(
            f"a LoRA's scale is {scale:g}; from {-SCALE_LIMIT:g} to {SCALE_LIMIT:g} is allowed",
            hint="1 is what it was trained for",
        )
    source = open_tensors(file)
    _refuse_others(source)
    layers = _layers(source)
    _compare_families(source, layers, weights)
    alphas = read_alphas(source)
    found: dict[str, dict[str, LowRank]] = {component: {} for component in weights}
    misfits: list[str] = []
    places = addresses(weights)
    for layer, keys in layers.items():
        factors = tuple(keys[role] for role in ("up", "mid", "down") if role in keys)
        homes = locate(layer, places)
        reason = _misfit([source.shapes[key] for key in factors], homes, weights)
        if reason:
            misfits.append(f"'{shown(factors[0])}' ({reason})")
            continue
        component, name = homes[0]
        if name in found[component]:
            raise SourceError(
                f"{file.name} has two layers for {component}'s '{name}', the second is"
                f" '{shown(factors[0])}'"
            )
        rank = source.shapes[factors[-1]][0]
        found[component][name] = LowRank(
            source=source,
            factors=factors,
            scale=scale * _strength(alphas, source, keys, (component, name), rank),
            shape=weights[component][name],
        )
    _refuse_misfits(source, misfits, len(layers))
    source.check_finite(key for keys in layers.values() for key in keys.values())
    return {component: additions for component, additions in found.items() if additions}


def combine(
    additions: Sequence[Mapping[str, Mapping[str, LowRank]]],
) -> dict[str, dict[str, tuple[LowRank, ...]]]:
    """Put several LoRAs together: component -> parameter -> its additions, which add up."""
    found: dict[str, dict[str, tuple[LowRank, ...]]] = {}
    for one in additions:
        for component, parameters in one.items():
            mine = found.setdefault(component, {})
            for name, addition in parameters.items():
                mine[name] = (*mine.get(name, ()), addition)
    return found


def _refuse_others(source: TensorFile) -> None:
    for kind, pattern in OTHERS.items():
        if any(re.search(pattern, key) for key in source.shapes):
            article = "an" if kind[0] in "IO" else "a"
            raise SourceError(
                f"{source.file.name} is {article} {kind}; only LoRA and LoCon can be merged"
            )


def _layers(source: TensorFile) -> dict[str, dict[str, str]]:
    """Sort the keys: layer as the file names it -> role (up, mid, down, alpha) -> key."""
    found: dict[str, dict[str, str]] = {}
    strange: list[str] = []
    for key in source.shapes:
        match = ROLES.search(key)
        if match is None:
            strange.append(key)
            continue
        word = next(group for group in match.groups() if group)
        roles = found.setdefault(key[: match.start()], {})
        role = PEFT_ROLES.get(word, word)
        if role in roles:
            raise SourceError(f"'{shown(key)}' says again what '{shown(roles[role])}' says")
        roles[role] = key
    if strange:
        raise SourceError(
            f"{source.file.name} has {len(strange)} of {len(source.shapes)} keys that are no part"
            f" of a LoRA, the first is '{shown(strange[0])}'"
        )
    for roles in found.values():
        for role in ("up", "down"):
            if role not in roles:
                raise SourceError(
                    f"'{shown(next(iter(roles.values())))}' in {source.file.name} has no"
                    f" '{role}' factor beside it",
                    hint="the file is incomplete: fetch it again",
                )
    return found


def _compare_families(
    source: TensorFile, layers: Mapping[str, Mapping[str, str]], weights: Weights
) -> None:
    theirs = {
        source.shapes[keys["down"]][1]
        for layer, keys in layers.items()
        if TEXT_KEY.search(layer) and len(source.shapes[keys["down"]]) == 2
    }
    ours = {
        shape[1]
        for name, shape in weights.get("unet", {}).items()
        if TEXT_KEY.search(name.removesuffix(".weight"))
    }
    if theirs and ours and not theirs & ours:
        raise SourceError(
            f"{source.file.name} is a LoRA for {_family(min(theirs))},"
            f" this model is {_family(min(ours))}",
            hint=FAMILY_HINT,
        )


def _family(width: int) -> str:
    return f"{FAMILIES.get(width, 'another family')} (text {width} wide)"


def _misfit(shapes: list[Shape], homes: list[tuple[str, str]], weights: Weights) -> str:
    """Say in a few words why factors of these shapes cannot be added, or nothing."""
    if not homes:
        return "the model has no such weight"
    if len(homes) > 1:
        return f"it can mean {' or '.join(component for component, _ in homes)}"
    component, name = homes[0]
    whole = weights[component][name]
    up, *core, down = shapes
    rank = down[0] if down else 0
    if rank == 0:
        return "its rank is 0"
    inner = core[0][0] if core and core[0] else rank
    needed = [(whole[0], inner), (rank, *whole[1:])]
    if core:
        needed = [(whole[0], inner), (inner, rank, *whole[2:]), (rank, whole[1])]
        if len(whole) != 4:
            return f"{name} is no convolution, but there is a middle factor"
    if [_squeezed(shape) for shape in shapes] != [_squeezed(shape) for shape in needed]:
        factors = " and ".join(str(list(shape)) for shape in (up, *core, down))
        return f"{factors} do not make {name}'s {list(whole)}"
    return ""


def _squeezed(shape: Shape) -> Shape:
    # A linear layer and a 1 x 1 convolution are the same numbers, and trainers write either.
    return shape[:2] if shape[2:] == (1, 1) else shape


def _refuse_misfits(source: TensorFile, misfits: list[str], count: int) -> None:
    if not misfits:
        return
    some = f"{len(misfits)} of its {count} layers do not fit this model, the first is {misfits[0]}"
    if 2 * len(misfits) > count:
        raise SourceError(
            f"{source.file.name} is a LoRA of another family: {some}", hint=FAMILY_HINT
        )
    raise SourceError(f"{source.file.name} cannot be merged: {some}")


def _strength(
    alphas: Alphas, source: TensorFile, keys: Mapping[str, str], home: tuple[str, str], rank: int
) -> float:
    """Give alpha / rank: the file's own alpha first, then that of its notes, then 1."""
    if "alpha" not in keys:
        return alphas.strength(*home, rank)
    key = keys["alpha"]
    if math.prod(source.shapes[key]) != 1:
        raise SourceError(f"'{shown(key)}' has shape {list(source.shapes[key])}; one number needed")
    alpha = float(source.read(key).reshape(()))
    if not math.isfinite(alpha):
        raise SourceError(f"'{shown(key)}' in {source.file.name} holds NaN or Inf")
    return alpha / rank
