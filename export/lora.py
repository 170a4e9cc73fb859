"""Reads a LoRA: what it adds to which weight of a checkpoint, to be merged while exporting.

A LoRA adds `scale * alpha / rank` times a product of small factors to a weight (Hu et al., arXiv
2106.09685, section 4.1); which products there are is in `export.products`. Key styles:
kohya-ss/sd-scripts, LyCORIS, diffusers (four ages of it), PEFT, ComfyUI. Beside them a file may
have whole differences, of a layer or normalisation, its weight's and its bias'.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.dora import Decomposed, axis_of
from export.errors import SourceError
from export.lora_alpha import MERGED, Alphas, read_alphas
from export.lora_names import addresses, locate
from export.products import Difference, Product, Shape, kind_of
from export.tensor_file import TensorFile, open_tensors, shown
from export.weightfiles import Addition

__all__ = ["SCALE_LIMIT", "combine", "read_lora"]

SCALE_LIMIT = 10.0  # sliders go to about 5 either way; far beyond there is only noise
Weights = Mapping[str, Mapping[str, Shape]]

ROLES = re.compile(
    r"\.lora_(?P<kohya>down|up|mid)\.weight$"
    r"|\.lora_(?P<peft>[AB])(?:\.[^.]+)?\.weight$"
    r"|[._]lora\.(?P<processor>down|up)\.weight$"
    r"|\.lora_linear_layer\.(?P<linear>down|up)\.weight$"
    r"|\.(?P<hadamard>hada_(?:w[12]_[ab]|t[12]))$"
    r"|\.(?P<kronecker>lokr_(?:w[12](?:_[ab])?|t2))$"
    r"|\.(?P<difference>diff|w_norm)$"
    r"|\.(?P<of_bias>diff_b|b_norm)$"
    r"|\.(?P<lycoris_dora>dora_scale)$"
    r"|\.lora_(?P<peft_dora>magnitude)_vector(?:\.[^.]+)?(?:\.weight)?$"
    r"|(?:[._]lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
)
MAGNITUDES = ("dora_scale", "magnitude")
# A difference has one role; whether it is the weight's or the bias' is kept with the layer's name.
ROLE_OF = {"A": "down", "B": "up"} | dict.fromkeys(("w_norm", "diff_b", "b_norm"), "diff")
WEIGHT, BIAS = ".weight", ".bias"
# What keys of other additions have in them: LyCORIS' modules, and what PEFT and ComfyUI add.
OTHERS = {
    "OFT": r"\.b?oft_",
    "IA3": r"\.on_input$|\.ia3_l\b",
    "GLora": r"\.[ab][12]\.weight$",
    "LoRA with biases": r"\.lora_(B|up)(\.[^.]+)?\.bias$",
    "LoRA of an embedding table": r"\.lora_embedding_[AB]\b",
}
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}  # width of the text the UNet attends to
FAMILY_HINT = "a LoRA fits only the family it was trained for: SD 1.x, SD 2.x or SDXL"
TEXT_KEY = re.compile(r"attn2[._](?:processor[._])?to_[kv]$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """What a file has for one parameter of a layer, `.weight` or `.bias`. factors: role -> key.
    alpha: the key of a number, or None. magnitude: role and key of DoRA's, or nothing.
    """

    parameter: str
    kind: type[Product]
    factors: Mapping[str, str]
    alpha: str | None
    magnitude: tuple[str, str] | None

    @property
    def keys(self) -> list[str]:
        """Return all its keys."""
        more = [self.alpha] if self.alpha else []
        return [*self.factors.values(), *more, *(self.magnitude or ())[1:]]

    def shapes(self, source: TensorFile) -> dict[str, Shape]:
        """Give role -> shape."""
        return {role: source.shapes[key] for role, key in self.factors.items()}


def read_lora(file: Path, scale: float, weights: Weights) -> dict[str, dict[str, Addition]]:
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
    found: dict[str, dict[str, Addition]] = {component: {} for component in weights}
    misfits: list[str] = []
    places = addresses(weights)
    for (label, _), layer in layers.items():
        first = shown(next(iter(layer.factors.values())))
        homes = _homes(layer, locate(label, places), weights)
        if reason := _misfit(layer, source, homes, weights):
            misfits.append(f"'{first}' ({reason})")
            continue
        component, name = homes[0]
        if name in found[component]:
            raise SourceError(
                f"{file.name} has two layers for {component}'s '{name}', the second is '{first}'"
            )
        if layer.magnitude is None and alphas.is_dora(component):
            raise SourceError(
                f"{file.name} is a DoRA by its notes, but '{first}' has no magnitude beside it",
                hint="the file is incomplete: fetch it again",
            )
        strength = _strength(alphas, source, layer, (component, name))
        found[component][name] = _addition(layer, source, strength, scale, weights[component][name])
    _refuse_misfits(source, misfits, len(layers))
    source.check_finite(key for layer in layers.values() for key in layer.keys)
    return {component: additions for component, additions in found.items() if additions}


def combine(
    additions: Sequence[Mapping[str, Mapping[str, Addition]]],
) -> dict[str, dict[str, tuple[Addition, ...]]]:
    """Put several LoRAs together: component -> parameter -> its additions, which add up."""
    found: dict[str, dict[str, tuple[Addition, ...]]] = {}
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
                f"{source.file.name} is {article} {kind}; only {MERGED} can be merged"
            )


def _homes(layer: Layer, homes: list[tuple[str, str]], weights: Weights) -> list[tuple[str, str]]:
    """Give the parameters meant by a layer whose weights are `homes`."""
    meant = [(part, name.removesuffix(WEIGHT) + layer.parameter) for part, name in homes]
    return [(part, name) for part, name in meant if name in weights[part]]


def _layers(source: TensorFile) -> dict[tuple[str, str], Layer]:
    """Sort the keys: layer as the file names it, and which parameter of it -> its factors."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    strange: list[str] = []
    for key in source.shapes:
        match = ROLES.search(key)
        if match is None:
            strange.append(key)
            continue
        word = next(group for group in match.groups() if group)
        parameter = BIAS if match["of_bias"] else WEIGHT
        roles = found.setdefault((key[: match.start()], parameter), {})
        role = ROLE_OF.get(word, word)
        if role in roles:
            raise SourceError(f"'{shown(key)}' says again what '{shown(roles[role])}' says")
        roles[role] = key
    if strange:
        raise SourceError(
            f"{source.file.name} has {len(strange)} of {len(source.shapes)} keys that are no part"
            f" of a LoRA, the first is '{shown(strange[0])}'"
        )
    return {place: _layer(source, place[1], roles) for place, roles in found.items()}


def _layer(source: TensorFile, parameter: str, roles: Mapping[str, str]) -> Layer:
    first = shown(next(iter(roles.values())))
    factors = {role: key for role, key in roles.items() if role not in {"alpha", *MAGNITUDES}}
    kind = kind_of(factors)
    if kind is None:
        raise SourceError(f"'{first}' in {source.file.name} stands beside factors of another kind")
    if lacking := kind.lacking(factors):
        raise SourceError(
            f"'{first}' in {source.file.name} has no '{lacking}' factor beside it",
            hint="the file is incomplete: fetch it again",
        )
    ordered = {role: factors[role] for role in kind.roles if role in factors}
    lengths = [(role, key) for role, key in roles.items() if role in MAGNITUDES]
    if len(lengths) > 1:
        raise SourceError(f"'{shown(lengths[1][1])}' says again what '{shown(lengths[0][1])}' says")
    if lengths and kind is Difference:
        raise SourceError(f"'{shown(lengths[0][1])}' is a DoRA's, but stands beside '{first}'")
    return Layer(
        parameter=parameter,
        kind=kind,
        factors=ordered,
        alpha=roles.get("alpha"),
        magnitude=lengths[0] if lengths else None,
    )


def _compare_families(
    source: TensorFile, layers: Mapping[tuple[str, str], Layer], weights: Weights
) -> None:
    theirs = {
        width
        for (name, _), layer in layers.items()
        if TEXT_KEY.search(name) and (width := layer.kind.width(layer.shapes(source)))
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


def _misfit(
    layer: Layer, source: TensorFile, homes: list[tuple[str, str]], weights: Weights
) -> str:
    """Say in a few words why a layer's factors cannot be added, or nothing."""
    if not homes:
        return "the model has no such weight"
    if len(homes) > 1:
        return f"it can mean {' or '.join(component for component, _ in homes)}"
    component, name = homes[0]
    whole = weights[component][name]
    if layer.magnitude:
        role, key = layer.magnitude
        if axis_of(role, source.shapes[key], whole) is None:
            return f"its magnitude of {list(source.shapes[key])} is not {name}'s of {list(whole)}"
    return layer.kind.misfit(layer.shapes(source), name, whole)


def _addition(
    layer: Layer, source: TensorFile, strength: float, scale: float, shape: Shape
) -> Addition:
    product = layer.kind(
        source=source,
        keys=layer.factors,
        scale=strength if layer.magnitude else scale * strength,
        shape=shape,
    )
    if layer.magnitude is None:
        return product
    role, key = layer.magnitude
    axis = axis_of(role, source.shapes[key], shape) or 0  # it fits: `_misfit` looked
    return Decomposed(product=product, magnitude=key, axis=axis, scale=scale)


def _refuse_misfits(source: TensorFile, misfits: list[str], count: int) -> None:
    if not misfits:
        return
    some = f"{len(misfits)} of its {count} layers do not fit this model, the first is {misfits[0]}"
    if 2 * len(misfits) > count:
        raise SourceError(
            f"{source.file.name} is a LoRA of another family: {some}", hint=FAMILY_HINT
        )
    raise SourceError(f"{source.file.name} cannot be merged: {some}")


def _strength(alphas: Alphas, source: TensorFile, layer: Layer, home: tuple[str, str]) -> float:
    """Give alpha / rank: the file's own alpha first, then that of its notes, then 1.

    Where no factor shows a rank, LyCORIS' own alpha is the rank, whatever it says; a difference has
    neither.
    """
    if layer.kind is Difference:
        return 1.0
    rank = layer.kind.rank(layer.shapes(source))
    if layer.alpha is None:
        return alphas.strength(*home, rank)
    key = layer.alpha
    if math.prod(source.shapes[key]) != 1:
        raise SourceError(f"'{shown(key)}' has shape {list(source.shapes[key])}; one number needed")
    alpha = float(source.read(key).reshape(()))
    if not math.isfinite(alpha):
        raise SourceError(f"'{shown(key)}' in {source.file.name} holds NaN or Inf")
    return 1.0 if rank is None else alpha / rank
