"""The network of a prompt: what the unet is shown, and what SDXL is told beside the prompt."""

import numpy as np
import pytest

from engine.batches import Together
from engine.conditioning import Conditioning, ScheduledConditioning
from engine.errors import BundleError
from engine.moment import Moment
from engine.network import Network, added_conditions


class Unet:
    """Keeps what it was shown, and answers with the latents it saw."""

    def __init__(self, channels=4):
        self.channels, self.seen = channels, {}

    def run(self, inputs):
        self.seen = {name: np.array(value) for name, value in inputs.items()}
        return self.seen["sample"][:, : self.channels]


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


def text(halves, pooled=None):
    return Conditioning(np.ones((halves, 3, 5), dtype=np.float32), pooled)


@pytest.mark.parametrize("halves", [1, 2, 3])
def test_each_text_sees_the_same_latents_at_the_moments_timestep(halves):
    unet, x = Unet(), np.random.default_rng(0).standard_normal((1, 4, 2, 3), dtype=np.float32)
    extra = np.full((halves, 2), 7.0, dtype=np.float32)
    answer = Network(unet, text(halves), {"extra": extra})(x, Moment(3, 1, 9, 2.0, 123.5))
    assert np.array_equal(answer, np.repeat(x, halves, axis=0))
    assert unet.seen["timestep"] == np.float32(123.5)
    assert unet.seen["encoder_hidden_states"].shape == (halves, 3, 5)
    assert np.array_equal(unet.seen["extra"], extra)


def test_a_unet_of_another_shape_is_refused():
    network = Network(Unet(channels=3), text(1), {})
    with pytest.raises(BundleError, match=r"gives \(1, 3, 2, 2\) for \(1, 4, 2, 2\)"):
        network(np.zeros((1, 4, 2, 2), dtype=np.float32), Moment(0, 0, 1, 1.0, 1.0))


def test_sdxl_is_told_height_before_width_and_no_crop():
    pooled = np.ones((2, 6), dtype=np.float32)
    added = added_conditions(text(2, pooled), width=640, height=512, time_ids=6)
    assert np.array_equal(added["text_embeds"], pooled)
    assert added["time_ids"].tolist() == [[512, 640, 0, 0, 512, 640]] * 2
    assert added_conditions(text(2), width=640, height=512, time_ids=6) == {}


@pytest.mark.parametrize(("halves", "scores"), [(1, [6.0]), (2, [2.5, 6.0]), (3, [2.5, 6.0, 6.0])])
def test_the_refiner_is_told_how_well_the_picture_is_liked(halves, scores):
    pooled = np.ones((halves, 6), dtype=np.float32)
    added = added_conditions(text(halves, pooled), width=640, height=512, time_ids=5)
    assert added["time_ids"].tolist() == [[512, 640, 0, 0, score] for score in scores]


def test_a_text_that_changes_is_shown_by_the_step_of_the_moment_with_its_pooled_form():
    texts = [
        (np.full((3, 5), value, dtype=np.float32), np.full(6, -value, dtype=np.float32))
        for value in (0.0, 1.0, 2.0)
    ]
    shown = [(0, 1), (0, 1), (0, 2)]
    changing = ScheduledConditioning(texts, shown)
    unet, x = Unet(), np.zeros((1, 4, 2, 2), dtype=np.float32)
    network = Network(unet, changing, added_conditions(changing, 64, 64, 6))
    for row, step in enumerate((0, 0, 1, 2, 2)):  # a sampler may ask twice a step
        network(x, Moment(row, step, 3, 1.0, 1.0))
        wanted = [0.0, (1.0, 1.0, 2.0)[step]]
        assert unet.seen["encoder_hidden_states"][:, 0, 0].tolist() == wanted
        assert (-unet.seen["text_embeds"][:, 0]).tolist() == wanted
        assert unet.seen["time_ids"].shape == (2, 6)


def test_each_text_sees_every_picture_and_is_told_with_its_own():
    """Rows are the pictures' first texts and then their second, in all that the unet is given."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((3, 4, 2, 2), dtype=np.float32)
    beside = draw.standard_normal((3, 5, 2, 2), dtype=np.float32)
    texts = []
    for picture in range(3):
        rows = np.array([picture, 10.0 + picture], dtype=np.float32)
        texts.append(Conditioning(rows.reshape(2, 1, 1).repeat(3, 1), -rows[:, None]))
    # The last one changes.
    first, second = (((each * ones(3, 1)), -each * ones(1)) for each in (2.0, 12.0))
    other = ((7.0 * ones(3, 1)), -7.0 * ones(1))
    texts[2] = ScheduledConditioning([first, second, other], [(0, 1), (0, 2)])
    shown = Together(texts)
    unet = Unet()
    added = added_conditions(shown, 64, 64, 6)
    network = Network(unet, shown, added, beside=beside)
    for step, last in ((0, 12.0), (1, 7.0)):
        answer = network(x, Moment(step, step, 2, 1.0, 1.0))
        assert np.array_equal(answer, np.concatenate([x, x]))
        assert np.array_equal(unet.seen["sample"][:, 4:], np.concatenate([beside, beside]))
        wanted = [0, 1, 2, 10, 11, last]
        assert unet.seen["encoder_hidden_states"][:, 0, 0].tolist() == wanted
        assert (-unet.seen["text_embeds"][:, 0]).tolist() == wanted
        assert unet.seen["time_ids"].shape == (6, 6)
    assert shown.at(Moment(1, 1, 2, 1.0, 1.0)) is shown.at(Moment(1, 1, 2, 1.0, 1.0))
