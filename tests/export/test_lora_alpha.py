"""Alpha is found in diffusers' notes and in PEFT's configuration, or refused in a sentence."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from export import SourceError
from export.lora import read_lora
from tests.export.lora_files import ALPHA, RANK, attentions, draw, state, tiny_weights, write


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return tiny_weights()


def noted(alpha: float, patterns: Mapping[str, float], **more: object) -> str:
    fields = {"r": RANK, "lora_alpha": alpha, "alpha_pattern": patterns} | more
    return json.dumps({f"unet.{key}": value for key, value in fields.items()})


def test_alpha_comes_from_diffusers_notes(tmp_path, weights):
    query, key, value, out = (
        each for each in attentions(weights) if "down_blocks.0.attentions.0" in each[1]
        and "attn1" in each[1]
    )  # fmt: skip
    factors = draw(weights, [query, key, value, out])
    module = {each: each[1].removesuffix(".weight") for each in factors}
    patterns = {f"^{module[query]}": 8.0, "attn1.to_k": 6.0, "o_v": 5.0}
    tensors = state(weights, factors, "diffusers")
    for name in tensors:
        if name.endswith("lora_B.weight"):
            tensors[name] = tensors[name] / np.float32(ALPHA / RANK)
    file = write(tmp_path, tensors, lora_adapter_metadata=noted(2.0, patterns))
    found = read_lora(file, 1.0, weights)["unet"]
    got = {each: found[each[1]].scale * RANK for each in factors}
    assert got == {query: 8.0, key: 6.0, value: 2.0, out: 2.0}  # 'o_v' is no whole name
    file = write(tmp_path, tensors, lora_adapter_metadata=noted(2.0, {}, use_rslora=True))
    assert read_lora(file, 1.0, weights)["unet"][query[1]].scale == 2.0 / np.sqrt(RANK)


def test_alpha_comes_from_the_configuration_that_peft_writes_beside_the_file(tmp_path, weights):
    factors = draw(weights, [each for each in attentions(weights) if each[0] == "unet"])
    file = write(tmp_path, state(weights, factors, "peft"))
    file = file.rename(tmp_path / "adapter_model.safetensors")
    assert next(iter(read_lora(file, 1.0, weights)["unet"].values())).scale == 1.0
    config = {"lora_alpha": 16, "r": RANK, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert {each.scale for each in read_lora(file, 1.0, weights)["unet"].values()} == {16 / RANK}


@pytest.mark.parametrize(
    ("note", "match"),
    [
        ("{", "not good JSON"),
        (noted(2.0, {}, use_dora=True), "is a DoRA by its notes, but .* has no magnitude"),
        (noted(2.0, {}, lora_bias=True), "with biases"),
        (noted(2.0, {"(a+)+": 1.0}), "is no layer"),
        (noted(2.0, {"to_q": "much"}), "a number is needed"),
        (noted(float("inf"), {}), "not good JSON"),
        (noted(1e9, {}), "is allowed"),
        (json.dumps({"unet.alpha_pattern": [1]}), "is no object"),
    ],
)
def test_notes_that_are_not_acceptable_are_refused(tmp_path, weights, note, match):
    tensors = state(weights, draw(weights, attentions(weights)[:1]), "diffusers")
    with pytest.raises(SourceError, match=match):
        read_lora(write(tmp_path, tensors, lora_adapter_metadata=note), 1.0, weights)
