"""A LoRA's layers mean the weights that diffusers takes them for, in either naming."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from export import SourceError
from export.architectures import TINY
from export.lora import read_lora
from export.lora_names import addresses, ldm_unet_names, locate
from tests.export.lora_files import (
    SDXL_LIKE,
    UNETS,
    attentions,
    draw,
    in_ldm,
    module_of,
    shapes_of,
    state,
    tiny_weights,
    unet,
    write,
    xl_weights,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return tiny_weights()


@pytest.mark.parametrize("family", UNETS)
def test_ldm_names_are_those_that_diffusers_converts(family):
    names = list(shapes_of(unet(UNETS[family])))
    weights = {"unet": names}
    checkpoint = {f"model.diffusion_model.{in_ldm(weights, name)}": name for name in names}
    assert len(checkpoint) == len(names)
    assert convert_ldm_unet_checkpoint(checkpoint, UNETS[family]) == {name: name for name in names}


@pytest.mark.parametrize(
    ("family", "upsamplers"),
    [
        ("sd1", ["output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv"]),
        ("sd2", ["output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv"]),
        ("sdxl", ["output_blocks.2.2.conv", "output_blocks.5.2.conv"]),
    ],
)
def test_an_upsampler_comes_behind_the_attention_of_its_level(family, upsamplers):
    """As in the published checkpoints; diffusers' converter takes either place."""
    table = ldm_unet_names(shapes_of(unet(UNETS[family])))
    assert [theirs for theirs, ours in table.items() if "upsamplers" in ours] == upsamplers


@pytest.mark.parametrize("family", UNETS)
def test_every_weight_is_found_by_its_flat_name_in_both_conventions(family):
    names = list(shapes_of(unet(UNETS[family])))
    places = addresses({"unet": names})
    for name in names:
        if name.endswith(".weight"):
            for layer in (name, in_ldm({"unet": names}, name)):
                flat = layer.removesuffix(".weight").replace(".", "_")
                assert locate(f"lora_unet_{flat}", places) == [("unet", name)]


def test_one_spelling_for_two_weights_is_refused():
    with pytest.raises(SourceError, match="are one name"):
        addresses({"unet": ["a_b.c.weight", "a.b_c.weight"]})


def diffusers_names(tensors: Mapping, config: Mapping, loader: type) -> set[tuple[str, str]]:
    """Give component and parameter of every layer as diffusers' converters name them."""
    torched = {key: torch.tensor(value) for key, value in tensors.items()}
    # The loader of SD 1.x and 2.x asks for no configuration, that of SDXL for the UNet's.
    extra = {"unet_config": SimpleNamespace(**config)} if loader is XL else {}
    converted, _ = loader.lora_state_dict(torched, **extra)
    found = set()
    for component in ("unet", "text_encoder", "text_encoder_2"):
        part = {
            key.removeprefix(f"{component}."): value
            for key, value in converted.items()
            if key.startswith(f"{component}.")
        }
        if part and "lora_A" not in next(iter(part)):
            to_peft = convert_unet_state_dict_to_peft
            if component != "unet":
                to_peft = convert_state_dict_to_peft
            part = to_peft(part)
        found |= {(component, key.split(".lora_A")[0]) for key in part if ".lora_A" in key}
    return found


XL = StableDiffusionXLLoraLoaderMixin


@pytest.mark.parametrize("style", ["kohya", "diffusers", "diffusers 0.2x", "processor"])
def test_layers_mean_what_diffusers_takes_them_for(tmp_path, weights, style):
    tensors = state(weights, draw(weights, attentions(weights)), style)
    theirs = diffusers_names(tensors, TINY["unet"], StableDiffusionLoraLoaderMixin)
    ours = read_lora(write(tmp_path, tensors), 1.0, weights)
    assert theirs == {
        (component, module_of(component, name))
        for component, additions in ours.items()
        for name in additions
    }


def test_an_sdxl_lora_in_ldm_names_means_what_diffusers_takes_it_for(tmp_path):
    weights = xl_weights()
    tensors = state(weights, draw(weights, attentions(weights)), "kohya in LDM's names")
    assert any(key.startswith("lora_unet_output_blocks_5_1_") for key in tensors)
    theirs = diffusers_names(tensors, SDXL_LIKE, XL)
    ours = read_lora(write(tmp_path, tensors), 1.0, weights)
    assert theirs == {(part, module_of(part, name)) for part in ours for name in ours[part]}
