"""How a build is shared: what belongs together stays together, little memory means one process."""

import os
from dataclasses import replace

import pytest

from export.recipes import SD1 as RECIPE
from export.variants import VARIANTS
from export.workload import ROOM, split

SD1 = RECIPE.components
NAMES = [part.name for part in SD1]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_the_unet_is_built_beside_the_rest():
    assert split(SD1, ROOM) == [["unet"], [name for name in NAMES if name != "unet"]]


def test_graphs_that_share_weights_are_built_one_after_the_other():
    unet = next(part for part in SD1 if part.name == "unet")
    more = [replace(unet, name=name, shares="unet") for name in VARIANTS["shallow"]]
    first, rest = split([*SD1, *more], ROOM)
    assert first == ["unet", *VARIANTS["shallow"]]
    assert sorted(first + rest) == sorted([*NAMES, *VARIANTS["shallow"]])


def test_one_process_where_there_is_no_room_or_nothing_to_share(monkeypatch):
    assert split(SD1, ROOM - 1) == [NAMES]
    assert split(SD1[:1], ROOM) == [NAMES[:1]]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert split(SD1, ROOM) == [NAMES]
