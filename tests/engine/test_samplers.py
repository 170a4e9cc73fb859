"""Every supported cell of sampler x schedule x prediction type against somebody else's code."""

import numpy as np
import pytest
import torch

from engine.errors import RequestError
from engine.request import DEFAULT_ETA, SAMPLERS, SCHEDULES
from engine.samplers import CELLS, METHODS, tabulate
from engine.samplers.row import Row, pack
from engine.schedule import CONVENTIONS, PREDICTION_TYPES, SPACINGS, Training, schedule
from tests.engine import oracle

K_SAMPLERS = {
    "dpmpp_2m": "sample_dpmpp_2m",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "euler": "sample_euler",
    "euler_a": "sample_euler_ancestral",
    "heun": "sample_heun",
}


def configs_for(prediction):
    """Name the configurations to test a prediction type on, with that type written in."""
    names = ("sd15",) if prediction != "v_prediction" else ("sd21", "pocket")
    return [oracle.CONFIGS[name] | {"prediction_type": prediction} for name in names]


def diffusers_can(sampler, name, prediction, steps):
    """Say whether diffusers itself integrates this cell, and does it right."""
    if name == "sgm_uniform":
        return False  # no class lays it
    if sampler == "ddim":
        # karras, exponential, beta: not offered. linspace, and trailing where steps do not divide
        # 1000: it steps to t - 1000 // steps, which is not the timestep it visits next.
        return name == "leading" or (name == "trailing" and 1000 % steps == 0)
    if sampler == "euler_a":
        # neither spacings by sigma nor prediction_type "sample" (NotImplementedError)
        return name in ("leading", "linspace", "trailing") and prediction != "sample"
    if sampler == "lcm":
        return name in ("leading", "linspace", "trailing")
    return True


@pytest.mark.parametrize(("sampler", "name", "prediction"), CELLS)
def test_cell_equals_its_oracle(sampler, name, prediction):
    for config in configs_for(prediction):
        training = Training.from_config(config)
        for steps in oracle.STEPS:
            noise = oracle.noises(steps, 2 * steps)
            eta = DEFAULT_ETA.get(sampler, 0.0)
            table = tabulate(sampler, training, name, steps, eta)
            grid = schedule(name, training, steps, sampler)
            got = oracle.preserving(
                oracle.ours(table, noise, prediction), sampler, table, grid.sigmas[-1]
            )
            if diffusers_can(sampler, name, prediction, steps):
                made = oracle.scheduler(sampler, config, name, steps)
                expected = oracle.diffusers_trajectory(made, noise, prediction)
            elif sampler == "ddim":
                expected = oracle.textbook_ddim(grid, noise, prediction, eta)
            elif sampler == "lcm":
                expected = oracle.textbook_lcm(grid, noise, prediction)
            elif sampler == "euler_a":
                function = oracle.k_diffusion("sampling").sample_euler_ancestral
                expected = oracle.k_trajectory(function, grid, noise, prediction)
            else:  # diffusers' integrator on our grid
                made = oracle.scheduler(sampler, config, "trailing", steps)
                made = oracle.on_grid(made, oracle.doubled(grid) if sampler == "heun" else grid)
                expected = oracle.diffusers_trajectory(made, noise, prediction)
            oracle.assert_agree(got, expected)


@pytest.mark.parametrize("sampler", K_SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTION_TYPES)
def test_k_diffusion_agrees_on_every_schedule(sampler, prediction):
    function = getattr(oracle.k_diffusion("sampling"), K_SAMPLERS[sampler])
    for name in SPACINGS:
        for steps in oracle.STEPS:
            if sampler == "dpmpp_2m_sde" and steps == 1:
                continue  # k-diffusion reads h before it is set: UnboundLocalError
            training = Training(prediction_type=prediction)
            noise = oracle.noises(steps + 7, steps)
            table = tabulate(sampler, training, name, steps, 1.0)
            grid = schedule(name, training, steps, sampler)
            got = oracle.ours(table, noise, prediction)
            if sampler == "heun":  # k-diffusion reports once a step, after its second evaluation
                last_of_step = np.append(np.diff(table.steps) > 0, True)
                got = [x for x, last in zip(got, last_of_step, strict=True) if last]
            oracle.assert_agree(got, oracle.k_trajectory(function, grid, noise, prediction))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("s_noise", [1.0, 0.9])
@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m_sde"])
def test_eta_and_s_noise_mean_what_k_diffusion_means(sampler, eta, s_noise):
    function = getattr(oracle.k_diffusion("sampling"), K_SAMPLERS[sampler])
    training = Training()
    noise = oracle.noises(3, 12)
    table = tabulate(sampler, training, "karras", 12, eta, s_noise)
    grid = schedule("karras", training, 12, sampler)
    options = {"eta": eta, "s_noise": s_noise}
    expected = oracle.k_trajectory(function, grid, noise, "epsilon", **options)
    oracle.assert_agree(oracle.ours(table, noise, "epsilon"), expected)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_equals_diffusers(eta):
    config = oracle.CONFIGS["sd15"]
    training = Training.from_config(config)
    noise = oracle.noises(5, 20)
    table = tabulate("ddim", training, "leading", 20, eta)
    # The last step ends above 0, where DDIM still adds noise.
    assert table.noise[-1] > 0
    made = oracle.scheduler("ddim", config, "leading", 20)
    expected = oracle.diffusers_trajectory(made, noise, "epsilon", eta)
    last = schedule("leading", training, 20, "ddim").sigmas[-1]
    got = oracle.preserving(oracle.ours(table, noise, "epsilon"), "ddim", table, last)
    oracle.assert_agree(got, expected)
    assert table.final_scale == pytest.approx(1 / np.sqrt(1 + last**2), rel=1e-12)


def test_sde_with_a_brownian_tree_equals_k_diffusion():
    """The noise of torchsde's tree at each step, recorded and injected here."""
    pytest.importorskip("torchsde", reason="the oracle's noise needs torchsde")
    sampling = oracle.k_diffusion("sampling")
    training, steps = Training(), 10
    grid = schedule("karras", training, steps, "dpmpp_2m_sde")
    start = oracle.noises(1, 0)
    tree = sampling.BrownianTreeNoiseSampler(
        torch.from_numpy(start[0]), 0.99 * grid.sigmas[-2], 1.01 * grid.sigmas[0], seed=11
    )
    recorded = list(start)

    def noise_sampler(sigma, sigma_next):
        recorded.append(tree(sigma, sigma_next).double().numpy())
        return torch.from_numpy(recorded[-1])

    expected = oracle.k_trajectory(
        sampling.sample_dpmpp_2m_sde, grid, start, "epsilon", noise_sampler=noise_sampler
    )
    table = tabulate("dpmpp_2m_sde", training, "karras", steps, 1.0)
    assert len(recorded) == steps  # the last of `steps` steps ends at 0 and takes none
    oracle.assert_agree(oracle.ours(table, recorded, "epsilon"), expected)


VARIANTS = [
    ("dpmpp_2m", {"solver_type": "heun"}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min"}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
    ("dpmpp_2m", {"final_sigmas_type": "sigma_min", "euler_at_final": True}),
    ("dpmpp_2m", {"solver_order": 1}),
    ("dpmpp_2m_sde", {"solver_type": "heun"}),
    ("dpmpp_2m_sde", {"final_sigmas_type": "sigma_min"}),
    ("euler", {"final_sigmas_type": "sigma_min"}),
    # with the final level 0, bh1 is infinity times 0 in diffusers: NaN
    ("unipc", {"final_sigmas_type": "sigma_min", "solver_type": "bh1"}),
    ("unipc", {"solver_order": 1}),
    ("unipc", {"solver_order": 3}),
    ("unipc", {"final_sigmas_type": "sigma_min", "solver_order": 3, "solver_type": "bh1"}),
    ("unipc", {"final_sigmas_type": "sigma_min"}),
    ("unipc", {"final_sigmas_type": "sigma_min", "lower_order_final": False}),
]


@pytest.mark.parametrize(("sampler", "keys"), VARIANTS, ids=str)
@pytest.mark.parametrize("steps", [2, 5, 14, 15, 16])
def test_keys_of_the_configuration_change_the_table_as_in_diffusers(sampler, keys, steps):
    config = oracle.CONFIGS["pocket"] | {"timestep_spacing": "leading"} | keys
    training = Training.from_config(config)
    noise = oracle.noises(steps, steps)
    table = tabulate(sampler, training, "leading", steps, 1.0)
    made = oracle.scheduler(sampler, config, "leading", steps)
    expected = oracle.diffusers_trajectory(made, noise, "v_prediction")
    last = schedule("leading", training, steps, sampler).sigmas[-1]
    got = oracle.ours(table, noise, "v_prediction")
    oracle.assert_agree(oracle.preserving(got, sampler, table, last), expected)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_a_step_of_no_length_is_the_limit_of_short_ones(sampler):
    """With sigma_min, karras ends twice at the lowest level; UniPC in diffusers gives NaN there."""
    config = oracle.CONFIGS["pocket"] | {"final_sigmas_type": "sigma_min"}
    training = Training.from_config(config)
    grid = schedule("karras", training, 6, sampler)
    assert grid.sigmas[-1] == grid.sigmas[-2]
    noise = oracle.noises(2, 6)
    table = tabulate(sampler, training, "karras", 6, 1.0)
    got = oracle.preserving(
        oracle.ours(table, noise, "v_prediction"), sampler, table, grid.sigmas[-1]
    )
    grid.sigmas[-1] *= 1.0 - 1e-13
    made = oracle.on_grid(oracle.scheduler(sampler, config, "trailing", 6), grid)
    oracle.assert_agree(got, oracle.diffusers_trajectory(made, noise, "v_prediction"))


def test_names_are_the_ones_that_a_request_may_hold():
    assert tuple(sorted(METHODS)) == SAMPLERS
    assert tuple(sorted(CONVENTIONS)) == SAMPLERS
    assert SPACINGS == SCHEDULES
    assert len(CELLS) == len(SAMPLERS) * len(SCHEDULES) * len(PREDICTION_TYPES)


def test_unknown_names_and_meaningless_values_are_refused():
    with pytest.raises(RequestError, match="did you mean 'euler'"):
        tabulate("eular", Training(), "karras", 4, 1.0)
    with pytest.raises(RequestError, match="did you mean 'karras'"):
        tabulate("euler", Training(), "karas", 4, 1.0)
    for eta in (-0.1, float("nan"), 3.0):
        with pytest.raises(RequestError, match="eta"):
            tabulate("euler_a", Training(), "karras", 4, eta)
    with pytest.raises(RequestError, match="s_noise"):
        tabulate("euler_a", Training(), "karras", 4, 1.0, float("inf"))


@pytest.mark.parametrize("sampler", sorted({*METHODS} - {"lcm"}))  # lcm is the identity at t = 0
def test_a_denoiser_that_knows_the_answer_is_believed(sampler):
    """Each table, run with a constant prediction, ends exactly there."""
    for name in SPACINGS:
        table = tabulate(sampler, Training(), name, 9, 1.0)
        x, answer = [np.float64(table.initial_scale)], 0.7
        for row in range(len(table.sigmas)):
            ages = zip(table.x[row], reversed(x), strict=False)
            x.append(sum(c * v for c, v in ages) + answer * table.denoised[row].sum())
        assert x[-1] == pytest.approx(answer, abs=1e-5)  # no noise: its mean is 0


def test_short_rows_are_filled_with_zeros():
    grid = schedule("karras", Training(), 2, "euler")
    rows = [
        Row(step=0, sigma=2.0, timestep=5.0, x=(1.0,), denoised=(2.0,)),
        Row(step=1, sigma=1.0, timestep=3.0, x=(3.0, 4.0), denoised=(5.0, 6.0, 7.0), noise=8.0),
    ]
    table = pack(rows, grid, 0.5)
    assert table.x.tolist() == [[1.0, 0.0], [3.0, 4.0]]
    assert table.denoised.tolist() == [[2.0, 0.0, 0.0], [5.0, 6.0, 7.0]]
    assert table.noise.tolist() == [0.0, 8.0]
    assert (table.steps.tolist(), table.final_scale) == ([0, 1], 0.5)
