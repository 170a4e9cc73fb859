"""Align Your Steps against diffusers' copy of the published numbers, and against its schedulers."""

import math
from pathlib import Path

import diffusers
import numpy as np
import pytest
from diffusers.schedulers import AysSchedules

import safelight
from engine import Bundle
from engine.ays import TIMESTEPS, ays_sigmas
from engine.errors import RequestError
from engine.samplers import METHODS, tabulate
from engine.schedule import CONVENTIONS, Training, schedule
from tests.engine import oracle

NAMES = {"sd1": "StableDiffusion", "sdxl": "StableDiffusionXL"}


def training(family):
    return Training(family=family)


@pytest.mark.parametrize("family", NAMES)
def test_the_timesteps_are_the_published_ones(family):
    assert TIMESTEPS[family] == (*AysSchedules[f"{NAMES[family]}Timesteps"], 0)
    for sampler, convention in CONVENTIONS.items():
        got = schedule("ays", training(family), 10, sampler).timesteps
        # broken timesteps come by a logarithm and back
        exact = 0.0 if convention.whole else 1e-9
        np.testing.assert_allclose(got, TIMESTEPS[family][:-1], rtol=0, atol=exact)


@pytest.mark.parametrize("family", NAMES)
def test_the_levels_are_the_published_ones(family):
    """They are published with three decimals, and not as the levels of the published timesteps."""
    published = AysSchedules[f"{NAMES[family]}Sigmas"]
    for sampler in ("euler", "dpmpp_2m"):
        got = schedule("ays", training(family), 10, sampler).sigmas
        # two of the training's levels lie 0.01 apart where the roundings differ most (0.113, 0.111)
        np.testing.assert_allclose(got, published, rtol=1e-3, atol=2.5e-3)
        assert got[-1] == published[-1] == 0.0


@pytest.mark.parametrize("family", NAMES)
def test_dpmpp_2m_takes_the_levels_that_diffusers_takes(family):
    config = oracle.CONFIGS["sd15"]
    made = diffusers.DPMSolverMultistepScheduler.from_config(config)
    with oracle.quiet():
        made.set_timesteps(timesteps=AysSchedules[f"{NAMES[family]}Timesteps"])
    got = schedule("ays", Training(family=family, timestep_spacing="leading"), 10, "dpmpp_2m")
    assert got.timesteps.tolist() == made.timesteps.tolist()
    # diffusers keeps its levels in float32
    np.testing.assert_allclose(got.sigmas, made.sigmas.numpy(), rtol=1e-5)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 5, 7, 15, 20, 37, 50])
def test_other_counts_lie_on_the_curve_in_log_sigma(family, steps):
    """Walk the published curve by hand: between two neighbours, a share of the way in log sigma."""
    levels = training(family).sigmas
    knots = [float(levels[each]) for each in TIMESTEPS[family]]
    got = ays_sigmas(training(family), steps)
    assert got.shape == (steps,)
    for index, sigma in enumerate(got):
        place = index * 10 / steps
        left = min(int(place), 9)
        share = place - left
        expected = knots[left] ** (1 - share) * knots[left + 1] ** share
        assert math.isclose(sigma, expected, rel_tol=1e-12)


def test_twenty_steps_pass_through_all_ten():
    for family in NAMES:
        both = [ays_sigmas(training(family), steps) for steps in (10, 20)]
        np.testing.assert_allclose(both[1][::2], both[0], rtol=1e-12)


@pytest.mark.parametrize("sampler", METHODS)
def test_every_sampler_runs_on_it_in_both_families(sampler):
    tables = [tabulate(sampler, training(family), "ays", 10, 1.0) for family in NAMES]
    for table in tables:
        assert np.isfinite(table.x).all()
        assert np.isfinite(table.denoised).all()
    assert not np.array_equal(tables[0].sigmas, tables[1].sigmas)


@pytest.mark.parametrize(
    "given",
    [
        {"family": "sd2"},
        {"family": "sd1", "prediction_type": "v_prediction"},
        {"family": "sdxl", "rescale_betas_zero_snr": True},
        {"family": "sd1", "beta_schedule": "linear"},
        {"family": "sd1", "num_train_timesteps": 500},
    ],
    ids=str,
)
def test_a_model_without_published_levels_is_refused_in_a_sentence(given):
    with pytest.raises(RequestError, match=rf"no published .*\(family {given['family']}"):
        schedule("ays", Training(**given), 10, "euler")


def test_too_many_whole_timesteps_are_refused():
    with pytest.raises(RequestError, match="'ays' has no 900 distinct noise levels"):
        schedule("ays", Training(), 900, "dpmpp_2m")


def test_the_family_comes_from_the_bundle():
    pocket = Bundle.open(Path(safelight.__file__).with_name("models") / "pocket", hash_cache=None)
    assert pocket.training.family == pocket.manifest.family == "sd1"
    with pytest.raises(RequestError, match="prediction v_prediction"):
        tabulate("dpmpp_2m", pocket.training, "ays", 10, 1.0)
