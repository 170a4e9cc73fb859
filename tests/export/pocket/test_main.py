import os
from unittest import mock

import pytest
import torch

from export.pocket.__main__ import STAGES, UNFINISHED, main
from export.pocket.settings import PROFILES, profile


@pytest.fixture(autouse=True)
def the_process_as_it_was():
    """The command owns its process: it sets variables, threads and flush-to-zero for good."""
    threads = torch.get_num_threads()
    with mock.patch.dict(os.environ):
        yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_a_stage_without_its_forerunner_says_so(tmp_path, capsys):
    assert main(["vae", "--work", str(tmp_path), "--profile", "smoke"]) == 1
    said = capsys.readouterr().err
    assert "pictures.json" in said
    assert "run the stage before first" in said


def test_a_piece_that_is_not_the_last_ends_with_75(tmp_path):
    from tests.export.pocket.drawn_shelf import write_shelf

    write_shelf(tmp_path)
    order = ["vae", "--work", str(tmp_path), "--profile", "smoke", "--minutes", "0"]
    assert main(order) == UNFINISHED
    assert not (tmp_path / "vae").exists()


def test_an_unknown_stage_is_usage():
    with pytest.raises(SystemExit) as caught:
        main(["fry", "--work", "x"])
    assert caught.value.code == 2


def test_the_profiles_are_all_there():
    assert {profile(name).name for name in PROFILES} == set(PROFILES)
    assert profile("full", optimizer="adamw").optimizer == "adamw"
    assert "evaluate" in STAGES
