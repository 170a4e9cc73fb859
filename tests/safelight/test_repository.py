"""What a hub lists: which answers are acceptable, and which files of them make a checkpoint."""

import pytest

from safelight.hub import open_hub
from safelight.offline import NetworkWatch
from safelight.repository import HubError, choose
from tests.safelight.loopback_hub import REPOSITORY, LoopbackHub, checkpoint_files, serve

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub():
    with serve(LoopbackHub(checkpoint_files())) as served:
        yield served


def listed(hub):
    with open_hub(hub.url, token="", watch=NetworkWatch()) as opened:
        return opened.repository(REPOSITORY, "main")


def names(files):
    return {file.name for file in files}


@pytest.mark.parametrize("name", ["a/../../x", "/etc/x", "a\\b", "a//b", "a\nb", "..", "./x", ""])
def test_a_name_that_is_no_plain_path_refuses_the_whole_repository(hub, name):
    hub.files[name] = b"x"
    with pytest.raises(HubError, match="climbs out of its folder or has no proper name"):
        listed(hub)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha": "main"}, "names no commit"),
        ({"siblings": [{"rfilename": "a", "size": -1}]}, "no acceptable size"),
        ({"siblings": [{"rfilename": "a", "size": 1}] * 2}, "twice"),
        ({"siblings": [{"size": 1}]}, "makes no sense"),
        ({"siblings": 3}, "makes no sense"),
    ],
)
def test_an_answer_that_makes_no_sense_is_one_sentence(hub, change, said):
    listing = hub.listing() | change
    hub.listing = lambda: listing
    with pytest.raises(HubError, match=said):
        listed(hub)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": ["mit", "apache-2.0"]}, "mit, apache-2.0"),
        ({"license": "other", "license_name": "own-terms"}, "own-terms"),
        ({}, "creativeml-openrail-m"),  # from the tags
    ],
)
def test_the_licence_is_what_the_card_says(hub, card, licence):
    hub.card = card
    assert listed(hub).licence == licence


def test_one_whole_file_wins_over_shards_and_shards_come_with_their_index(hub):
    stem = "unet/diffusion_pytorch_model"
    shards = {f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)}
    index = f"{stem}.safetensors.index.json"
    hub.files |= dict.fromkeys((*shards, index), b"x")
    assert not shards & names(choose(listed(hub), ""))
    del hub.files[UNET]
    assert {name for name in names(choose(listed(hub), "")) if "unet" in name} == {
        "unet/config.json",
        index,
        *shards,
    }


def test_a_repository_in_another_layout_is_refused(hub):
    del hub.files["model_index.json"]
    with pytest.raises(HubError, match="no diffusers repository"):
        choose(listed(hub), "")


CHECKER = {
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "feature_extractor/preprocessor_config.json",
}


def test_a_safety_checker_comes_along_with_its_preparation(hub):
    assert not names(choose(listed(hub), "")) & CHECKER  # nothing says how to use it
    hub.files["feature_extractor/preprocessor_config.json"] = b"{}"
    assert names(choose(listed(hub), "")) >= CHECKER
    small = names(choose(listed(hub), "fp16"))
    assert "safety_checker/model.fp16.safetensors" in small
    assert "safety_checker/model.safetensors" not in small


def test_a_safety_checker_that_is_only_a_pickle_stays_away(hub):
    hub.files["feature_extractor/preprocessor_config.json"] = b"{}"
    for name in ("model", "model.fp16"):
        del hub.files[f"safety_checker/{name}.safetensors"]
    found = names(choose(listed(hub), ""))
    assert UNET in found
    assert not any(name.startswith(("safety_checker", "feature_extractor")) for name in found)


NETWORK = {
    "config.json": b'{"_class_name": "ControlNetModel"}',
    "README.md": b"a card",
    "LICENSE": b"a licence",
    "diffusion_pytorch_model.bin": b"a pickle",
    "diffusion_pytorch_model.safetensors": b"weights" * 20,
    "diffusion_pytorch_model.fp16.safetensors": b"weights" * 10,
    "images/hint.png": b"x",
}


def test_one_network_of_diffusers_is_a_repository_too(hub):
    hub.files = dict(NETWORK)
    weights = "diffusion_pytorch_model.safetensors"
    assert names(choose(listed(hub), "")) == {"config.json", "LICENSE", weights}
    small = names(choose(listed(hub), "fp16"))
    assert small == {"config.json", "LICENSE", "diffusion_pytorch_model.fp16.safetensors"}
    with pytest.raises(HubError, match="no weights of variant 'bf16'"):
        choose(listed(hub), "bf16")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (["config.json", "pytorch_model.bin"], "no diffusers repository"),
        (["diffusion_pytorch_model.safetensors"], "no diffusers repository"),
        (["config.json", "diffusion_pytorch_model.bin"], "only as a pickle"),
    ],
)
def test_what_is_no_network_of_diffusers_is_refused(hub, left, said):
    hub.files = {name: NETWORK.get(name, b"x") for name in left}
    with pytest.raises(HubError, match=said):
        choose(listed(hub), "")
