import pytest

from engine.errors import BundleError
from safelight.exits import UsageError
from safelight.shelf import Shelf, check_name


def test_pocket_is_on_every_shelf(tmp_path):
    entry = Shelf(tmp_path / "models", tmp_path / "cache").find("pocket")
    assert entry.shipped
    assert (entry.path / "model_index.json").is_file()


def test_a_model_of_the_user_wins_over_the_shipped_one(tmp_path):
    (tmp_path / "pocket").mkdir()
    entry = Shelf(tmp_path, tmp_path).find("pocket")
    assert not entry.shipped
    assert entry.path == tmp_path / "pocket"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(BundleError, match="did you mean 'pocket'") as caught:
        Shelf(tmp_path, tmp_path).find("poket")
    assert "pocket" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "-x", "A", "a" * 65, "a.", "ä"])
def test_a_name_that_is_no_folder_everywhere_is_refused(name):
    with pytest.raises(UsageError, match="cannot be the name"):
        check_name(name)


@pytest.mark.parametrize("name", ["pocket", "sd15", "v1.5-pruned_ema", "7b"])
def test_ordinary_names_pass(name):
    assert check_name(name) == name
