"""Spacings against diffusers and k-diffusion, step counts one by one."""

import math

import numpy as np
import pytest
import torch

from engine.errors import RequestError
from engine.schedule import SPACINGS, Training, schedule
from tests.engine import oracle

_BY_TIMESTEP = ("leading", "linspace", "trailing")
COUNTS = (*range(1, 13), 15, 16, 18, 20, 25, 30, 35, 43, 48, 50, 100, 333)

# Which class lays which spacing itself (ddim's and lcm's by-sigma spacings are ours).
OFFERED = [
    (sampler, name)
    for sampler in ("dpmpp_2m", "unipc", "euler", "euler_a", "heun", "ddim")
    for name in SPACINGS
    if name in _BY_TIMESTEP
    or (name not in ("ays", "sgm_uniform") and sampler not in ("ddim", "euler_a"))
]


@pytest.mark.parametrize(("sampler", "name"), OFFERED)
@pytest.mark.parametrize("model", ["sd15", "pocket"])
def test_grid_equals_diffusers(sampler, name, model):
    config = oracle.CONFIGS[model]
    training = Training.from_config(config)
    if name not in _BY_TIMESTEP:
        training = _configured(config, name)
    # diffusers' Heun lays all 1000 levels whenever it is made, by scipy one at a time
    for steps in (1, 2, 3, 10, 20, 50) if sampler == "heun" else COUNTS:
        made = oracle.scheduler(sampler, config, name, steps)
        evaluations = 2 if sampler == "heun" else 1
        timesteps = made.timesteps.double().numpy()[::evaluations]
        got = schedule(name, training, steps, sampler)
        # float32 holds diffusers' broken timesteps; whole ones must be equal
        np.testing.assert_allclose(got.timesteps, timesteps, rtol=0, atol=1e-4)
        if sampler != "ddim":
            sigmas = made.sigmas.numpy()
            if sampler == "heun":
                sigmas = np.append(sigmas[:-1:2], 0.0)
            np.testing.assert_allclose(got.sigmas, sigmas, rtol=1e-6)
        scale = float(made.init_noise_sigma)
        if sampler in ("ddim", "dpmpp_2m", "unipc"):  # they keep x / sqrt(sigma**2 + 1)
            scale *= math.sqrt(got.sigmas[0] ** 2 + 1)
        assert got.initial_scale == pytest.approx(scale, rel=1e-6)


def _configured(config, name):
    return Training.from_config(config | {f"use_{name}_sigmas": True})


def test_a_configured_spacing_is_the_default_one():
    for name in ("karras", "exponential", "beta"):
        assert _configured(oracle.CONFIGS["sd15"], name).default_schedule == name
    assert Training.from_config(oracle.CONFIGS["sd15"]).default_schedule == "leading"
    assert Training.from_config(oracle.CONFIGS["pocket"]).default_schedule == "linspace"


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 50])
def test_lcm_visits_the_timesteps_of_its_distillation(steps):
    made = oracle.scheduler("lcm", oracle.CONFIGS["sd15"], "leading", steps)
    for name in _BY_TIMESTEP:  # the class ignores timestep_spacing, and so does the sampler
        got = schedule(name, Training(), steps, "lcm")
        assert got.timesteps.tolist() == made.timesteps.tolist()
        assert got.sigmas[-1] == 0.0


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_sigma_spacings_equal_k_diffusion(steps):
    sampling = oracle.k_diffusion("sampling")
    training = Training()
    low, high = training.sigmas[0], training.sigmas[-1]
    for name, function in (
        ("karras", sampling.get_sigmas_karras),
        ("exponential", sampling.get_sigmas_exponential),
    ):
        for sampler in ("ddim", "dpmpp_2m", "lcm"):
            expected = function(steps, low, high).double().numpy()
            # k-diffusion lays them in float32
            np.testing.assert_allclose(
                schedule(name, training, steps, sampler).sigmas, expected, rtol=2e-5
            )


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_sgm_uniform_equals_k_diffusions_discretisation(steps):
    """k-diffusion's DiscreteSchedule.get_sigmas, without its last point and with a 0 instead."""
    training = Training()
    discrete = oracle.k_diffusion("external").DiscreteSchedule(
        torch.from_numpy(training.sigmas), quantize=False
    )
    timesteps = torch.linspace(999, 0, steps + 1, dtype=torch.float64)[:-1]
    got = schedule("sgm_uniform", training, steps, "euler")
    np.testing.assert_allclose(got.sigmas[:-1], discrete.t_to_sigma(timesteps), rtol=1e-6)
    np.testing.assert_allclose(got.timesteps, timesteps, rtol=1e-12)
    assert (got.sigmas[-1], got.initial_scale) == (0.0, pytest.approx(got.sigmas[0]))


def test_timesteps_of_levels_equal_k_diffusions():
    training = Training()
    discrete = oracle.k_diffusion("external").DiscreteSchedule(
        torch.from_numpy(training.sigmas), quantize=False
    )
    got = schedule("exponential", training, 30, "ddim")
    expected = discrete.sigma_to_t(torch.from_numpy(got.sigmas[:-1]))
    np.testing.assert_allclose(got.timesteps, expected, rtol=1e-9, atol=1e-6)


def test_whole_timesteps_survive_rounding_errors():
    """diffusers' float32 tables cut the first one from 999 to 998; float64 keeps it."""
    for name in ("exponential", "beta"):
        assert schedule(name, Training(), 20, "dpmpp_2m").timesteps[0] == 999.0


def test_the_end_is_where_the_configuration_says():
    at_minimum = Training(final_sigmas_type="sigma_min")
    not_to_one = Training(set_alpha_to_one=False)
    lowest = at_minimum.sigmas[0]
    for sampler in ("dpmpp_2m", "dpmpp_2m_sde", "unipc", "euler"):
        assert schedule("leading", at_minimum, 9, sampler).sigmas[-1] == lowest
        assert schedule("leading", not_to_one, 9, sampler).sigmas[-1] == 0.0
    for sampler in ("euler_a", "heun", "lcm", "ddim"):
        assert schedule("leading", at_minimum, 9, sampler).sigmas[-1] == 0.0
    assert schedule("leading", not_to_one, 9, "ddim").sigmas[-1] == lowest
    # ddim would reach that level one step early by these, and then not move
    assert schedule("karras", not_to_one, 9, "ddim").sigmas[-1] == 0.0


@pytest.mark.parametrize("name", SPACINGS)
def test_levels_fall_from_first_to_last(name):
    for sampler in ("ddim", "dpmpp_2m", "euler", "lcm"):
        for steps in (1, 2, 3, 17, 50):
            grid = schedule(name, Training(), steps, sampler)
            assert grid.sigmas.shape == (steps + 1,)
            assert grid.timesteps.shape == (steps,)
            assert (np.diff(grid.sigmas) < 0).all()
            assert (grid.timesteps >= 0).all()
            assert (grid.timesteps <= 999).all()


def test_zero_terminal_snr_starts_at_a_finite_level():
    training = Training(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    grid = schedule("trailing", training, 10, "euler")
    assert grid.timesteps[0] == 999.0
    assert grid.sigmas[0] == pytest.approx(4096.0, rel=1e-6)


def test_what_cannot_be_laid_is_refused():
    with pytest.raises(RequestError, match="steps is 0"):
        schedule("karras", Training(), 0, "euler")
    with pytest.raises(RequestError, match="from 1 to 1000"):
        schedule("karras", Training(), 1001, "euler")
    with pytest.raises(RequestError, match="no 1000 distinct"):
        schedule("leading", Training(), 1000, "dpmpp_2m")
    with pytest.raises(RequestError, match="at most 50"):
        schedule("leading", Training(), 51, "lcm")
    with pytest.raises(RequestError, match="unknown sampler"):
        schedule("leading", Training(), 5, "magic")
    with pytest.raises(RequestError, match="did you mean 'karras'"):
        schedule("karas", Training(), 5, "euler")
