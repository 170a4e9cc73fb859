"""Says which weight a LoRA's layer means, whatever its trainer called it.

Trainers write the same layer in different words: with dots or with underscores for dots, after
diffusers' modules or after those of the first published code (LDM), with and without CLIP's
`text_model.`. Underscores cannot be undone, so nothing is undone: each parameter is spelled in
every way, with underscores, and a layer is looked up among the spellings.
"""

from collections.abc import Iterable, Iterator, Mapping

from export.errors import SourceError
from export.ldm import RESNET, UNET_TOP

__all__ = ["Addresses", "addresses", "ldm_unet_names", "locate"]

# component -> spelling of a layer with underscores -> parameter name
Addresses = Mapping[str, Mapping[str, str]]

WEIGHT = ".weight"
UNET = "unet"
CLIP_PREFIX = "text_model."
PEFT_PREFIX = "base_model.model."
# Beginnings that name the component: kohya-ss/sd-scripts (networks/lora.py, sdxl_train_util),
# diffusers, and ComfyUI's own saving (`diffusion_model.`).
PREFIXES = {
    "lora_unet_": UNET,
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "unet.": UNET,
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "diffusion_model.": UNET,
}
# Before 0.22 diffusers kept LoRA in attention processors, also for CLIP, under the UNet's names.
OLD_CLIP = {
    "self_attn_q_proj": "self_attn_to_q",
    "self_attn_k_proj": "self_attn_to_k",
    "self_attn_v_proj": "self_attn_to_v",
    "self_attn_out_proj": "self_attn_to_out",
}


def ldm_unet_names(names: Iterable[str]) -> dict[str, str]:
    """Map the UNet's modules in LDM's names to diffusers' (`input_blocks.1.1` -> `down_blocks...`).

    names: diffusers' parameter names; how many layers a level has is read off them. A module's
    inside is named alike in both, except for resnets, whose layers are given one by one.
    """
    modules = {module for name in names for module in _beginnings(name)}
    found = {theirs: ours for theirs, ours in UNET_TOP.items() if ours in modules}
    found |= _down(modules) | _middle(modules) | _up(modules)
    return found


def _down(modules: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    place = 1  # 0 is conv_in
    for level in _count(modules, "down_blocks"):
        block = f"down_blocks.{level}"
        for layer in _count(modules, f"{block}.resnets"):
            found |= _layer(modules, f"input_blocks.{place}", block, layer)
            place += 1
        if f"{block}.downsamplers.0" in modules:
            found[f"input_blocks.{place}.0.op"] = f"{block}.downsamplers.0.conv"
            place += 1
    return found


def _middle(modules: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for layer in _count(modules, "mid_block.resnets"):
        found |= _resnet(modules, f"middle_block.{2 * layer}", f"mid_block.resnets.{layer}")
    for layer in _count(modules, "mid_block.attentions"):
        found[f"middle_block.{2 * layer + 1}"] = f"mid_block.attentions.{layer}"
    return found


def _up(modules: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    place = 0
    for level in _count(modules, "up_blocks"):
        block = f"up_blocks.{level}"
        for layer in _count(modules, f"{block}.resnets"):
            found |= _layer(modules, f"output_blocks.{place}", block, layer)
            place += 1
        if f"{block}.upsamplers.0" in modules:  # behind the level's last resnet and attention
            inner = 2 if f"output_blocks.{place - 1}.1" in found else 1
            found[f"output_blocks.{place - 1}.{inner}.conv"] = f"{block}.upsamplers.0.conv"
    return found


def _layer(modules: set[str], theirs: str, block: str, layer: int) -> dict[str, str]:
    found = _resnet(modules, f"{theirs}.0", f"{block}.resnets.{layer}")
    if f"{block}.attentions.{layer}" in modules:
        found[f"{theirs}.1"] = f"{block}.attentions.{layer}"
    return found


def _resnet(modules: set[str], theirs: str, ours: str) -> dict[str, str]:
    return {
        f"{theirs}.{old}": f"{ours}.{new}"
        for old, new in RESNET.items()
        if f"{ours}.{new}" in modules
    }


def _count(modules: set[str], block: str) -> Iterator[int]:
    number = 0
    while f"{block}.{number}" in modules:
        yield number
        number += 1


def _beginnings(name: str) -> Iterator[str]:
    end = name.find(".")
    while end != -1:
        yield name[:end]
        end = name.find(".", end + 1)


def addresses(weights: Mapping[str, Iterable[str]]) -> Addresses:
    """Spell every parameter that ends in `.weight` in all ways. weights: component -> names.

    Raises SourceError when one spelling would mean two parameters.
    """
    return {component: _component(component, list(names)) for component, names in weights.items()}


def _component(component: str, names: list[str]) -> dict[str, str]:
    theirs = {}
    if component == UNET:
        theirs = {ours: ldm for ldm, ours in ldm_unet_names(names).items()}
    found: dict[str, str] = {}
    for name in names:
        if not name.endswith(WEIGHT):
            continue
        spell = _unet_spellings(name, theirs) if component == UNET else _clip_spellings(name)
        for spelling in spell:
            if found.setdefault(spelling, name) != name:
                raise SourceError(
                    f"{component}: '{found[spelling]}' and '{name}' are one name in a LoRA"
                )
    return found


def _unet_spellings(name: str, theirs: Mapping[str, str]) -> Iterator[str]:
    for spelling in (name, *_in_ldm(name, theirs)):
        flat = _flat(spelling.removesuffix(WEIGHT))
        yield flat
        if flat.endswith("_to_out_0"):  # a processor's LoRA leaves out the list around it
            yield flat.removesuffix("_0")


def _in_ldm(name: str, theirs: Mapping[str, str]) -> Iterator[str]:
    for module in _beginnings(name):
        if module in theirs:
            yield theirs[module] + name.removeprefix(module)


def _clip_spellings(name: str) -> Iterator[str]:
    bare = _flat(name.removeprefix(CLIP_PREFIX).removesuffix(WEIGHT))
    old = bare
    for new, former in OLD_CLIP.items():
        old = old.replace(new, former)
    for spelling in (bare, old):
        yield spelling
        yield _flat(CLIP_PREFIX) + spelling


def locate(layer: str, places: Addresses) -> list[tuple[str, str]]:
    """Give (component, parameter) of every weight that `layer`, as a file names it, can mean.

    None when there is no such weight; more than one only when the file names no component.
    """
    layer = layer.removeprefix(PEFT_PREFIX)
    components: Iterable[str] = places
    for prefix, component in PREFIXES.items():
        if layer.startswith(prefix):
            layer, components = layer.removeprefix(prefix), (component,)
            break
    flat = _flat(layer.removeprefix(PEFT_PREFIX)).replace("_processor_", "_")
    return [
        (component, places[component][flat])
        for component in components
        if flat in places.get(component, {})
    ]


def _flat(name: str) -> str:
    return name.replace(".", "_")
