"""The second course starts from the first one's averages and dwells on what was drawn badly."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from export.errors import ExportError
from export.pocket import autoencoder, denoiser, latents, polish
from export.pocket.features import fit
from export.pocket.icons import composite
from export.pocket.pictures import open_shelf
from export.pocket.settings import PolishPlan
from tests.export.pocket.drawn_shelf import write_shelf

# The scheduler of diffusers 0.42 reads a tensor in the way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def quiet(_: str) -> None:
    """Hear what a stage says and keep it."""


@pytest.fixture(scope="module")
def first(tmp_path_factory, settings):
    """A work folder in which the first course is over."""
    work = tmp_path_factory.mktemp("first")
    write_shelf(work)
    for stage in (autoencoder, latents, denoiser):
        assert stage.build(work, settings, 9.0, quiet)
    return work


@pytest.fixture
def begun(first, settings):
    """The same, with one concept found weak and no step of the second course made."""
    assert not polish.build(first, settings, 0.0, quiet)
    yield first
    (first / "polish-state.safetensors").unlink()


def test_it_wants_the_first_course_whole(tmp_path, settings):
    write_shelf(tmp_path)
    autoencoder.build(tmp_path, settings, 9.0, quiet)
    latents.build(tmp_path, settings, 9.0, quiet)
    with pytest.raises(ExportError, match="not trained to its end"):
        polish.build(tmp_path, settings, 9.0, quiet)


def test_it_begins_at_the_averages_and_not_at_the_last_step(begun, settings):
    trained = denoiser.open_trainer(begun, settings)
    start = polish.open_trainer(begun, settings)
    differs = False
    for name, p in start._parameters.items():
        assert torch.equal(p.detach(), trained._average[name]), name
        differs |= not torch.equal(p.detach(), trained._parameters[name].detach())
    assert differs


def test_pieces_give_what_an_unbroken_run_gives(begun, settings):
    whole = polish.open_trainer(begun, settings)
    for _ in range(settings.polish.steps):
        whole._advance()
    piece = polish.open_trainer(begun, settings)
    piece._advance()
    piece._save()
    rest = polish.open_trainer(begun, settings)
    list(rest.run(9.0))
    assert rest.done
    for name, p in whole._average.items():
        assert torch.equal(p, rest._average[name]), name


def test_another_plan_does_not_go_on_from_this_one(begun, settings):
    polish.open_trainer(begun, settings)._save()
    other = replace(settings, polish=PolishPlan(steps=settings.polish.steps, emphasis=9))
    with pytest.raises(ExportError, match="other settings"):
        polish.open_trainer(begun, other)


def test_the_weak_are_drawn_as_much_oftener_as_asked(first, settings):
    shelf, encoded = open_shelf(first, settings), latents.open_latents(first)
    weak = shelf.rows[shelf.where("concept")[0]].concept
    lessons = denoiser.Lessons(
        denoiser.new_network(settings), shelf, encoded, settings, repeated={weak: 4}
    )
    seen = Counter(
        shelf.rows[encoded.row[index]].concept
        for step in range(150)
        for index in lessons.draw(step)[0]
        if encoded.second[index] < 0
    )
    others = [count for concept, count in seen.items() if concept != weak]
    assert len(others) == 3
    assert seen[weak] / np.mean(others) == pytest.approx(4.0, rel=0.35)  # about 1,100 draws


def test_a_picture_of_another_icon_has_a_margin_below_zero(shelf, settings):
    rows = shelf.where("concept")
    space = fit(shelf.rgba[rows], range(len(rows)), "full", seed=settings.seed, copies=3)
    drawn = composite(shelf.rgba[rows]).copy()
    drawn[1] = drawn[0]
    mirrored = np.ascontiguousarray(drawn[:, :, ::-1])
    for pictures in (drawn, mirrored):
        sure = polish.margins(space, shelf, rows, pictures) > 0
        assert sure.tolist() == [True, False, True, True]


def test_the_least_sure_are_named_and_never_none():
    concepts = ["owl", "bear", "cow", "ant"]
    margin = np.array([0.5, -0.1, 0.2, 0.3])
    assert polish.weakest(concepts, margin, 0.5) == ["bear", "cow"]
    assert polish.weakest(concepts, margin, 0.01) == ["bear"]
