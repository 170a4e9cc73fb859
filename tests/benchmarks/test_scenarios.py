"""The table is frozen: a row that changes without a new version breaks every older result."""

import json
from pathlib import Path

import pytest

from benchmarks.models import architecture_hash
from benchmarks.scenarios import SCENARIOS, PictureScenario, find, prompt_of
from export.architectures import PUBLIC
from safelight.exits import UsageError

FROZEN = {
    "pocket-128": (1, "c2b637dd3b4debf4"),
    "sd15-512": (1, "8342e3ee10e44c42"),
    "sd21-768": (1, "0a7210284febc3fd"),
    "sdxl-1024": (1, "a8d7ec03342f07d0"),
    "turbo-512": (1, "bca33056817276db"),
    "vault-seal": (1, "2ee74a5c45aa4847"),
    "vault-1000": (1, "ace5b08509aae57b"),
    "vault-100000": (1, "30e0d861464a627f"),
    "vault-1000000": (1, "30b03cc32e354b7e"),
}
POCKET = Path(__file__).parents[2] / "safelight" / "models" / "pocket"


def test_no_row_has_changed():
    assert {row.name: (row.version, row.hash) for row in SCENARIOS.values()} == FROZEN


@pytest.mark.parametrize("name", [n for n, r in SCENARIOS.items() if hasattr(r, "model")])
def test_architectures_are_the_public_ones(name):
    row = find(name)
    if row.model == "pocket":
        config = json.loads((POCKET / "unet" / "config.json").read_text())
    else:
        config = PUBLIC[row.model]["unet"]
    assert architecture_hash(config) == row.architecture


def test_a_published_configuration_with_more_fields_is_the_same_architecture():
    more = {
        "act_fn": "silu",
        "_class_name": "UNet2DConditionModel",
        "transformer_layers_per_block": 1,
    }
    assert architecture_hash(dict(PUBLIC["sd15"]["unet"]) | more) == find("sd15-512").architecture
    other = dict(PUBLIC["sd15"]["unet"]) | {"block_out_channels": [320, 640, 1280, 1281]}
    assert architecture_hash(other) != find("sd15-512").architecture


@pytest.mark.parametrize(
    ("name", "meant"),
    [("pocket128", "pocket-128"), ("vault-10000", "vault-1000"), ("sdxl1024", "sdxl-1024")],
)
def test_the_nearest_name_is_offered(name, meant):
    with pytest.raises(UsageError, match=f"unknown scenario '{name}'; did you mean '{meant}"):
        find(name)


def test_no_prompt_comes_twice_before_all_came_once():
    row = find("pocket-128")
    assert isinstance(row, PictureScenario)
    first = [prompt_of(row, number) for number in range(63)]
    assert len(set(first)) == 63
    assert prompt_of(row, 63) == first[0]
    assert prompt_of(row, -1) == first[-1]  # of the warm-up
