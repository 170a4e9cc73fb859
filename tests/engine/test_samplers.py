"""Every supported cell of sampler x schedule x prediction type against somebody else's code."""

from pathlib import Path

import numpy as np
import pytest
import torch

import safelight
from engine import Bundle
from engine.backends.openvino import OpenVinoBackend
from engine.errors import RequestError
from engine.request import DEFAULT_ETA, SAMPLERS, SCHEDULES
from engine.samplers import CELLS, METHODS, tabulate
from engine.samplers.row import Row, pack
from engine.schedule import CONVENTIONS, PREDICTION_TYPES, SPACINGS, Training, schedule
from engine.stages import Stages
from tests.engine import oracle

K_SAMPLERS = {
    "dpm2": "sample_dpm_2",
    "dpm2_a": "sample_dpm_2_ancestral",
    "dpmpp_2m": "sample_dpmpp_2m",
    "dpmpp_2m_sde": "sample_dpmpp_2m_sde",
    "dpmpp_2s_a": "sample_dpmpp_2s_ancestral",
    "dpmpp_3m_sde": "sample_dpmpp_3m_sde",
    "dpmpp_sde": "sample_dpmpp_sde",
    "euler": "sample_euler",
    "euler_a": "sample_euler_ancestral",
    "heun": "sample_heun",
    "lms": "sample_lms",
}
# diffusers has no class of these, or one that lays other middles than the paper: k-diffusion's.
K_ALONE = ("dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_3m_sde", "dpmpp_sde", "lms")


def configs_for(prediction):
    """Name the configurations to test a prediction type on, with that type written in."""
    names = ("sd15",) if prediction != "v_prediction" else ("sd21", "pocket")
    return [oracle.CONFIGS[name] | {"prediction_type": prediction} for name in names]


def diffusers_can(sampler, name, prediction, steps):
    """Say whether diffusers itself integrates this cell, and does it right."""
    if name in ("ays", "sgm_uniform") or sampler in K_ALONE:
        return False  # no class lays it, or it is k-diffusion's
    if (sampler, steps) == ("deis", 1):
        # by sigma its one step has no length
        return name in ("leading", "linspace", "trailing")
    if sampler in ("ddim", "pndm"):
        # karras, exponential, beta: not offered. linspace, and trailing where steps do not divide
        # 1000: they step to t - 1000 // steps, which is not the timestep that they visit next.
        fits = name == "leading" or (name == "trailing" and 1000 % steps == 0)
        return fits and (sampler, prediction) != ("pndm", "sample")  # ValueError
    if sampler in ("ddpm", "euler_a", "lcm", "tcd"):
        # no spacings by sigma, and euler_a no prediction_type "sample" (NotImplementedError)
        offered = name in ("leading", "linspace", "trailing")
        return offered and (sampler, prediction) != ("euler_a", "sample")
    return True


def last_of_each_step(table, trajectory):
    """Leave out what lies within a step."""
    last = np.append(np.diff(table.steps) > 0, True)
    return [x for x, ends in zip(trajectory, last, strict=True) if ends]


def brownian(noise, grid):
    """Give dpmpp_sde's oracle the two noises of a step, which lie on one Brownian path.

    Of the whole step's path the first look takes the time from sigma to the middle.
    """
    stream = (torch.from_numpy(n) for n in noise[1:])
    first = []

    def sampler(sigma, sigma_next):
        if len(first) == 0:
            first.append((next(stream), sigma_next))
            return first[0][0]
        earlier, middle = first.pop()
        share = (sigma - middle) / (sigma - sigma_next)
        return share.sqrt() * earlier + (1 - share).sqrt() * next(stream)

    return {"noise_sampler": sampler}


def by_k_diffusion(sampler, table, grid, noise, prediction, **options):
    """Give our trajectory and k-diffusion's, which it reports once a step."""
    function = getattr(oracle.k_diffusion("sampling"), K_SAMPLERS[sampler])
    if sampler == "dpmpp_sde":
        options |= brownian(noise, grid)
    got = last_of_each_step(table, oracle.ours(table, noise, prediction))
    return got, oracle.k_trajectory(function, grid, noise, prediction, **options)


def trajectories(sampler, name, prediction, config, steps):
    """Give our trajectory of a cell and somebody else's."""
    training = Training.from_config(config)
    noise = oracle.noises(steps, 2 * steps)
    eta = DEFAULT_ETA.get(sampler, 0.0)
    table = tabulate(sampler, training, name, steps, eta)
    grid = schedule(name, training, steps, sampler)
    got = oracle.preserving(oracle.ours(table, noise, prediction), sampler, table, grid.sigmas[-1])
    if diffusers_can(sampler, name, prediction, steps):
        made = oracle.scheduler(sampler, config, name, steps)
        expected = oracle.diffusers_trajectory(made, noise, prediction)
    elif sampler in ("ddim", "ddpm"):
        expected = oracle.textbook_ddim(grid, noise, prediction, eta)
    elif sampler == "tcd":
        expected = oracle.textbook_tcd(grid, noise, prediction, eta)
    elif sampler == "pndm":
        got = oracle.ours(table, noise, prediction)
        expected = oracle.textbook_plms(grid, noise, prediction)
    elif sampler in K_ALONE:
        got, expected = by_k_diffusion(sampler, table, grid, noise, prediction)
    elif sampler == "lcm":
        expected = oracle.textbook_lcm(grid, noise, prediction)
    elif sampler == "euler_a":
        function = oracle.k_diffusion("sampling").sample_euler_ancestral
        expected = oracle.k_trajectory(function, grid, noise, prediction)
    else:  # diffusers' integrator on our grid
        # where a schedule is not of the class's own, its start is the configured spacing's
        spacing = config["timestep_spacing"] if name == "ays" else "trailing"
        made = oracle.scheduler(sampler, config, spacing, steps)
        made = oracle.on_grid(made, oracle.doubled(grid) if sampler == "heun" else grid)
        expected = oracle.diffusers_trajectory(made, noise, prediction)
    return got, expected


@pytest.mark.parametrize(("sampler", "name", "prediction"), CELLS)
def test_cell_equals_its_oracle(sampler, name, prediction):
    for config in configs_for(prediction):
        for steps in oracle.STEPS:
            if (sampler, steps) != ("dpmpp_3m_sde", 1):  # k-diffusion reads h before it is set
                oracle.assert_agree(*trajectories(sampler, name, prediction, config, steps))


@pytest.fixture(scope="module")
def pocket_network():
    """Give pocket's own unet as a network of latents and timestep, f64[1, 4, 8, 8] each way."""
    folder = Path(safelight.__file__).parent / "models" / "pocket"
    bundle = Bundle.open(folder, hash_cache=None)
    stages = Stages(bundle, OpenVinoBackend("fp32", None), bundle.tokenizers(), {})
    request = bundle.request(prompt="red apple", seed=0, steps=1)
    embeds = stages.embed(stages.conditioner.plan(request, 1, guided=False)).embeds
    session = stages.components.unet(1, embeds.shape[1], *(8 * side for side in oracle.SHAPE[2:]))

    def network(x, timestep):
        given = {"sample": x.astype(np.float32), "encoder_hidden_states": embeds}
        return session.run(given | {"timestep": np.asarray(timestep, np.float32)}).astype(float)

    return network


@pytest.mark.parametrize(
    ("sampler", "name"), [cell[:2] for cell in CELLS if cell[2] == "v_prediction"]
)
def test_cell_equals_its_oracle_on_pocket(monkeypatch, pocket_network, sampler, name):
    monkeypatch.setattr(oracle, "network", pocket_network)  # the stand-in steps aside
    config = oracle.CONFIGS["pocket"]
    oracle.assert_agree(*trajectories(sampler, name, "v_prediction", config, 6))


# What a network predicts is turned before a table sees it: one kind in `make test`.
ONE_PREDICTION = [
    kind if kind == "epsilon" else pytest.param(kind, marks=pytest.mark.slow)
    for kind in PREDICTION_TYPES
]


@pytest.mark.parametrize("sampler", K_SAMPLERS)
@pytest.mark.parametrize("prediction", ONE_PREDICTION)
def test_k_diffusion_agrees_on_every_schedule(sampler, prediction):
    for name in SPACINGS:
        if name == "ays" and prediction != "epsilon":
            continue  # no such cell
        for steps in oracle.STEPS:
            if sampler in ("dpmpp_2m_sde", "dpmpp_3m_sde") and steps == 1:
                continue  # k-diffusion reads h before it is set: UnboundLocalError
            training = Training(prediction_type=prediction)
            noise = oracle.noises(steps + 7, 2 * steps)
            table = tabulate(sampler, training, name, steps, 1.0)
            grid = schedule(name, training, steps, sampler)
            oracle.assert_agree(*by_k_diffusion(sampler, table, grid, noise, prediction))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("s_noise", [1.0, 0.9])
@pytest.mark.parametrize("sampler", sorted({*K_SAMPLERS} & {*DEFAULT_ETA}))
def test_eta_and_s_noise_mean_what_k_diffusion_means(sampler, eta, s_noise):
    training = Training()
    noise = oracle.noises(3, 24)
    table = tabulate(sampler, training, "karras", 12, eta, s_noise)
    grid = schedule("karras", training, 12, sampler)
    options = {"eta": eta, "s_noise": s_noise}
    oracle.assert_agree(*by_k_diffusion(sampler, table, grid, noise, "epsilon", **options))


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


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_tcd_equals_diffusers(eta, steps):
    config = oracle.CONFIGS["sd15"]
    training = Training.from_config(config)
    noise = oracle.noises(6, steps)
    table = tabulate("tcd", training, "leading", steps, eta)
    made = oracle.scheduler("tcd", config, "leading", steps)
    expected = oracle.diffusers_trajectory(made, noise, "epsilon", eta)
    last = schedule("leading", training, steps, "tcd").sigmas[-1]
    got = oracle.preserving(oracle.ours(table, noise, "epsilon"), "tcd", table, last)
    oracle.assert_agree(got, expected)


def test_both_noises_of_a_step_lie_on_one_brownian_path():
    """torchsde's tree gives dpmpp_sde's oracle a step's noises; what is new in each is ours."""
    pytest.importorskip("torchsde", reason="the oracle's noise needs torchsde")
    sampling = oracle.k_diffusion("sampling")
    training, steps = Training(), 10
    grid = schedule("karras", training, steps, "dpmpp_sde")
    start = oracle.noises(1, 0)
    tree = sampling.BrownianTreeNoiseSampler(
        torch.from_numpy(start[0]), 0.99 * grid.sigmas[-2], 1.01 * grid.sigmas[0], seed=11
    )
    calls = list[tuple[float, float, torch.Tensor]]()

    def noise_sampler(sigma, sigma_next):
        calls.append((float(sigma), float(sigma_next), tree(sigma, sigma_next).double()))
        return calls[-1][2]

    expected = oracle.k_trajectory(
        sampling.sample_dpmpp_sde, grid, start, "epsilon", noise_sampler=noise_sampler
    )
    fresh = list(start)
    for (sigma, middle, first), (_, sigma_next, whole) in zip(calls[::2], calls[1::2], strict=True):
        share = (sigma - middle) / (sigma - sigma_next)
        new = (whole - share**0.5 * first) / (1 - share) ** 0.5
        fresh += [first.numpy(), new.numpy()]
    table = tabulate("dpmpp_sde", training, "karras", steps, 1.0)
    got = last_of_each_step(table, oracle.ours(table, fresh, "epsilon"))
    oracle.assert_agree(got, expected)
    # fresh pieces are what they should be: independent of the first half, and of unit variance
    firsts, news = np.array(fresh[1::2]), np.array(fresh[2::2])
    assert abs(float(np.mean(firsts * news))) < 4 / np.sqrt(firsts.size)
    assert float(np.mean(news**2)) == pytest.approx(1, abs=4 * np.sqrt(2 / news.size))


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
    ("deis", {"solver_order": 1}),
    ("deis", {"solver_order": 3}),
    ("deis", {"solver_order": 3, "lower_order_final": False}),
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
    every = len(SAMPLERS) * len(SCHEDULES) * len(PREDICTION_TYPES)
    # ays was published for networks that predict eps alone
    assert len(CELLS) == every - len(SAMPLERS) * (len(PREDICTION_TYPES) - 1)


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


@pytest.mark.parametrize("sampler", sorted({*METHODS} - {"lcm"}))  # the identity at t = 0
def test_a_denoiser_that_knows_the_answer_is_believed(sampler):
    """Each table, run with a constant prediction, ends exactly there."""
    for name in SPACINGS:
        table = tabulate(sampler, Training(), name, 9, 1.0)
        x, answer = [np.float64(table.initial_scale)], 0.7
        for row in range(len(table.sigmas)):
            ages = zip(table.x[row], reversed(x), strict=False)
            x.append(sum(c * v for c, v in ages) + answer * table.denoised[row].sum())
        # no noise: its mean is 0. deis stops at the lowest level, and has that much of x left
        levels = schedule(name, Training(), 9, sampler).sigmas
        left = (x[0] - answer) * levels[-1] / levels[0] if sampler == "deis" else 0.0
        assert x[-1] == pytest.approx(answer + left, abs=1e-5)


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
