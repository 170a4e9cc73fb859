"""A checkpoint's own safety checker is read, and what keeps it from being read is said."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.safety import PREPARATION_FILE
from export import Ingredients, SourceError
from export.companion_modules import load_companion
from export.safetychecker import left_out
from tests.export.companion_files import tiny_checker, write_checker


@pytest.fixture
def source(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "source")


def opened(source):
    return Ingredients(source=source).open()


def has_checker(checkpoint):
    return any(part.name == "safety_checker" for part in checkpoint.recipe.components)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_what_was_saved(source, dtype):
    theirs = tiny_checker(seed=1)
    write_checker(source, theirs, dtype=dtype)
    checkpoint = opened(source)
    assert has_checker(checkpoint)
    ours = load_companion(checkpoint, "safety_checker").state_dict()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], value.to(dtype).float())
    config = checkpoint.configs["safety_checker"]
    assert config["concept_embeds_weights"] == [1.0] * 17
    assert "_name_or_path" not in json.dumps(config)
    assert PREPARATION_FILE in checkpoint.pieces.files
    assert {"safety_checker/model.safetensors", PREPARATION_FILE} <= set(checkpoint.pieces.origins)


def test_thresholds_are_kept_to_the_last_bit(source):
    theirs = tiny_checker(seed=1)
    theirs.concept_embeds_weights.data = torch.linspace(0.1, 0.3, 17)
    write_checker(source, theirs)
    kept = json.loads(json.dumps(opened(source).configs["safety_checker"]))
    assert torch.equal(
        torch.tensor(kept["concept_embeds_weights"]), theirs.concept_embeds_weights.data
    )


def test_a_checkpoint_without_one_is_as_it_was(source):
    checkpoint = opened(source)
    assert not has_checker(checkpoint)
    assert left_out(checkpoint) == ""


def test_one_that_is_not_there_is_left_out_with_the_reason(source):
    write_checker(source, tiny_checker(seed=1))
    weights = source / "safety_checker/model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    checkpoint = opened(source)
    assert not has_checker(checkpoint)
    assert "is a pickle" in left_out(checkpoint)
    shutil.rmtree(source / "safety_checker")
    checkpoint = opened(source)
    assert not has_checker(checkpoint)
    assert left_out(checkpoint) == "its files are not there"


def test_one_that_does_not_fit_is_refused(source):
    write_checker(source, tiny_checker(seed=1))
    preparation = source / PREPARATION_FILE
    good = preparation.read_text()
    preparation.write_text(json.dumps({"size": 48, "crop_size": 48}))
    with pytest.raises(SourceError, match="other pictures than 48x48"):
        opened(source)
    preparation.write_text(json.dumps({"resample": 0, "size": 40, "crop_size": 32}))
    with pytest.raises(SourceError, match=r"in 'source': .*bicubic"):
        opened(source)
    preparation.write_text(good)
    weights = source / "safety_checker/model.safetensors"
    stored = load_file(weights)
    save_file(stored | {"concept_embeds_weights": torch.full((17,), float("nan"))}, weights)
    with pytest.raises(SourceError, match="NaN or Inf"):
        opened(source)
    save_file(stored | {"concept_embeds_weights": torch.ones(16)}, weights)
    with pytest.raises(SourceError, match="no 17 numbers"):
        opened(source)
