"""LoRAs of a folder, added to the shipped model as the studio does it."""

import pytest

from export import SourceError
from safelight.exits import UsageError
from safelight.shelf import Shelf, check_name
from safelight.workshop.cards import cards
from safelight.workshop.loras import Loras
from tests.export.test_reweight import POCKET, some_lora, weights_of


@pytest.fixture
def loras(tmp_path):
    """Give two LoRA files in a folder, beside others, and a shelf to put bundles on."""
    folder = tmp_path / "loras"
    for name, seed in (("ink", 3), ("Wide Brush", 4)):
        made, _ = some_lora(tmp_path / name, weights_of(POCKET), seed=seed)
        folder.mkdir(exist_ok=True)
        made.rename(folder / f"{name}.safetensors")
    (folder / "notes.txt").write_text("no LoRA")
    return Loras(folder, Shelf(tmp_path / "models", tmp_path / "cache"))


def silent(_stage, _done):
    pass


def test_chosen_loras_become_a_bundle_that_is_found_again(loras):
    told = []
    assert loras.names() == ["Wide Brush", "ink"]
    name = loras.add("pocket", {"ink": 0.5}, lambda stage, done: told.append(done))
    assert name == "pocket-ink-0.5"
    assert (told[0], told[-1]) == (0.0, 1.0)
    again = loras.add("pocket", {"ink": 0.5}, lambda *_: pytest.fail("it was made again"))
    assert again == name
    both = loras.add("pocket", {"Wide Brush": -1, "ink": 0.25}, silent)
    assert both == check_name(both)
    shelf = Shelf(loras.folder.parent / "models", loras.folder.parent / "cache")
    found = {card.name: (card.base, card.loras) for card in cards(shelf)}
    assert found["pocket"] == ("pocket", ())
    assert found[name] == ("pocket", (("ink.safetensors", 0.5),))
    assert found[both][1] == (("Wide Brush.safetensors", -1.0), ("ink.safetensors", 0.25))


@pytest.mark.parametrize(
    ("scales", "says"),
    [
        ({}, "0 LoRAs are chosen"),
        ({"ink": 0}, "the scale of LoRA 'ink' is 0"),
        ({"ink": float("nan")}, "the scale of LoRA 'ink' is nan"),
        ({"ink": 11}, "is 11"),
        ({"../loras/ink": 1}, "no such LoRA"),
        ({"notes": 1}, "no such LoRA"),
    ],
)
def test_what_cannot_be_added_is_refused_and_leaves_nothing(loras, scales, says):
    with pytest.raises(UsageError, match=says):
        loras.add("pocket", scales, silent)
    assert not (loras.folder.parent / "models").exists()


def test_a_file_that_is_no_lora_is_refused_in_the_exporters_words(loras):
    (loras.folder / "bad.safetensors").write_bytes(b"not at all")
    with pytest.raises(SourceError):
        loras.add("pocket", {"bad": 1.0}, silent)
    assert list((loras.folder.parent / "models").iterdir()) == []


def test_another_model_of_the_name_is_not_overwritten(loras):
    name = loras.add("pocket", {"ink": 0.5}, silent)
    (loras.folder / "ink.safetensors").write_bytes(
        (loras.folder / "Wide Brush.safetensors").read_bytes()
    )
    with pytest.raises(UsageError, match=f"'{name}' already, made of something else"):
        loras.add("pocket", {"ink": 0.5}, silent)


def test_names_are_folders_on_every_system_and_differ(loras):
    long = "Ü" * 70
    for stem in (long, long[:-1] + "X", "ink.", "INK"):
        (loras.folder / f"{stem}.safetensors").write_bytes(
            (loras.folder / "ink.safetensors").read_bytes()
        )
    made = [
        loras.add("pocket", {stem: 1.0}, silent)
        for stem in (long, long[:-1] + "X", "ink.", "INK", "ink")
    ]
    assert len(set(made)) == 5
    assert [check_name(each) for each in made] == made
