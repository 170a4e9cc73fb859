"""What a request says of a ControlNet, and in which steps it acts."""

import math

import pytest

from engine.control import Control
from engine.errors import RequestError
from engine.moment import Moment


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"model": ""}, "name has 0 characters"),
        ({"scale": -0.1}, r"scale of ControlNet 'net' is -0.1; from 0 to 2 is"),
        ({"scale": 2.01}, "from 0 to 2"),
        ({"scale": math.nan}, "from 0 to 2"),
        ({"start": -0.1}, "acts from -0.1 to 1.0"),
        ({"end": 1.1}, "the start before the end"),
        ({"start": 0.5, "end": 0.5}, "the start before the end"),
        ({"start": math.nan}, "the start before the end"),
    ],
)
def test_a_value_out_of_bounds_is_refused(given, match):
    with pytest.raises(RequestError, match=match):
        Control(**{"model": "net"} | given)


def steps_of(control, steps):
    moments = [Moment(row, row, steps, 1.0, 1.0) for row in range(steps)]
    return [moment.step for moment in moments if control.acts_at(moment)]


def diffusers_steps(start, end, steps):
    """Count as StableDiffusionControlNetPipeline.__call__ does (controlnet_keep)."""
    return [i for i in range(steps) if not (i / steps < start or (i + 1) / steps > end)]


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 25])
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.0, 0.3), (0.25, 0.8), (0.7, 1.0), (0.31, 0.32)])
def test_it_acts_in_the_steps_in_which_diffusers_lets_it(span, steps):
    control = Control(model="net", start=span[0], end=span[1])
    assert steps_of(control, steps) == diffusers_steps(*span, steps)


def test_a_scale_of_nothing_acts_nowhere():
    assert steps_of(Control(model="net", scale=0.0), 5) == []


def test_both_evaluations_of_a_step_are_in_or_out_together():
    control = Control(model="net", end=0.5)
    rows = [Moment(row, row // 2, 4, 1.0, 1.0) for row in range(8)]
    assert [control.acts_at(moment) for moment in rows] == [True] * 4 + [False] * 4
