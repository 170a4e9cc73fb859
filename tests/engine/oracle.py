"""Oracles: whole sampling trajectories by other people's code, in float64, with injected noise.

Three kinds: diffusers' schedulers (`diffusers_trajectory`), k-diffusion's samplers
(`k_diffusion`), and the papers' formulas written down directly (`textbook_*`). `ours` applies a
table in float64, so that a disagreement is the table's fault and not that of float32.

Latents are compared in the space that the sampler's diffusers scheduler works in.
"""

import contextlib
import copy
import functools
import importlib.util
import itertools
import logging
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch

from engine.samplers import Table
from engine.schedule import CONVENTIONS, Schedule

SHAPE = (1, 4, 8, 8)
STEPS = (1, 2, 3, 20, 50)
TOLERANCE = 1e-5  # relative to the largest value of the trajectory's step

_COMMON = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085}
_COMMON |= {"num_train_timesteps": 1000, "steps_offset": 1, "trained_betas": None}
CONFIGS = {
    # Stable Diffusion 1.5 as published (its class is PNDM), its spacing written out
    "sd15": _COMMON
    | {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True}
    | {"clip_sample": False, "timestep_spacing": "leading", "prediction_type": "epsilon"},
    # Stable Diffusion 2.1 as published
    "sd21": _COMMON
    | {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True}
    | {"clip_sample": False, "timestep_spacing": "leading", "prediction_type": "v_prediction"},
    # the model that ships with the package
    "pocket": _COMMON
    | {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"}
    | {"euler_at_final": False, "final_sigmas_type": "zero", "lower_order_final": True}
    | {"lambda_min_clipped": -float("inf"), "solver_order": 2, "solver_type": "midpoint"}
    | {"timestep_spacing": "linspace", "prediction_type": "v_prediction", "clip_sample": False},
}

DIFFUSERS = {
    "ddim": diffusers.DDIMScheduler,
    "ddpm": diffusers.DDPMScheduler,
    "deis": diffusers.DEISMultistepScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_2m_sde": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "lcm": diffusers.LCMScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "pndm": diffusers.PNDMScheduler,
    "tcd": diffusers.TCDScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}

logging.getLogger("diffusers").setLevel(logging.ERROR)  # it lists config keys that a class ignores


def network(x, timestep):
    """Stand in for a UNet: smooth, bounded, nonlinear, mixing pixels, and different at each t."""
    before = np.concatenate([x[..., -1:], x[..., :-1]], axis=-1)  # np.roll takes longer
    above = np.concatenate([x[:, -1:], x[:, :-1]], axis=1)
    mixed = 1.3 * x + 0.4 * before - 0.3 * above
    return np.tanh(mixed + 0.5 * np.sin(timestep / 90.0)) + 0.1 * np.cos(3.0 * x)


def noises(seed, count):
    """Make the start's noise and `count` more, f64[SHAPE] each."""
    return list(np.random.default_rng(seed).standard_normal((count + 1, *SHAPE)))


def denoised_by(prediction_type, x, sigma, timestep):
    """Turn the network's answer into clean latents, by the definitions of eps and v.

    With a = 1 / (1 + sigma**2) the network sees z = sqrt(a) * x, which is
    sqrt(a) * x0 + sqrt(1 - a) * eps, and v = sqrt(a) * eps - sqrt(1 - a) * x0.
    """
    a = 1.0 / (1.0 + sigma**2)
    z = np.sqrt(a) * x
    out = network(z, timestep)
    if prediction_type == "epsilon":
        return (z - np.sqrt(1.0 - a) * out) / np.sqrt(a)
    if prediction_type == "v_prediction":
        return np.sqrt(a) * z - np.sqrt(1.0 - a) * out
    return out


def ours(table: Table, noise, prediction_type):
    """Apply a table in float64: the latents after each row."""
    stream = iter(noise)
    xs, predictions, seen = [next(stream) * table.initial_scale], [], []
    for row in range(len(table.sigmas)):
        predictions.append(
            denoised_by(prediction_type, xs[-1], table.sigmas[row], table.timesteps[row])
        )
        terms = list(zip(table.x[row], reversed(xs), strict=False))
        terms += list(zip(table.denoised[row], reversed(predictions), strict=False))
        if table.noise[row]:
            terms.append((table.noise[row], next(stream)))
        xs.append(sum(c * term for c, term in terms))
        seen.append(xs[-1])
    return seen


def preserving(trajectory, sampler, table, last_sigma):
    """Bring latents to the space of the sampler's diffusers scheduler, for comparison."""
    if not CONVENTIONS[sampler].variance_preserving:
        return trajectory
    levels = [*table.sigmas[1:], last_sigma]
    return [x / np.sqrt(sigma**2 + 1.0) for x, sigma in zip(trajectory, levels, strict=True)]


def assert_agree(got, expected):
    """Compare two trajectories step by step."""
    assert len(got) == len(expected)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error <= TOLERANCE, f"after evaluation {index}: relative error {error:.2e}"


# --- diffusers -----------------------------------------------------------------------------------


def scheduler(sampler, config, schedule_name, steps):
    """Make diffusers' scheduler with float64 tables, its timesteps set.

    Its own tables are float32, which alone costs 1.3e-5 at the lowest noise level; float64 ones go
    in before set_timesteps, so that its own code lays the grid from them.
    """
    flags = {"use_karras_sigmas": False}
    if schedule_name in ("leading", "linspace", "trailing"):
        flags["timestep_spacing"] = schedule_name
    elif schedule_name != "sgm_uniform":
        flags[f"use_{schedule_name}_sigmas"] = True
    if sampler == "pndm":
        # as every Stable Diffusion has it; and ours takes the default of DDIM where none is given
        flags["skip_prk_steps"] = True
        flags["set_alpha_to_one"] = config.get("set_alpha_to_one", True)
    if sampler == "dpmpp_2m_sde":
        flags["algorithm_type"] = "sde-dpmsolver++"
    with quiet():
        made = copy.deepcopy(_made(sampler, tuple(sorted((config | flags).items()))))
        return _with_exact_tables(made, config, steps)


@functools.cache  # Heun lays 1000 levels whenever it is made: 0.1 s
def _made(sampler, items):
    return DIFFUSERS[sampler].from_config(dict(items))


@contextlib.contextmanager
def quiet():
    """Let diffusers call numpy on tensors: torch 2.13's predate what numpy 2 asks of arrays."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_", DeprecationWarning)
        yield


def _with_exact_tables(made, config, steps):
    made.alphas_cumprod = torch.from_numpy(exact_alphas_cumprod(config))
    if hasattr(made, "final_alpha_cumprod"):
        one = torch.ones((), dtype=torch.float64)
        to_one = made.config.set_alpha_to_one
        made.final_alpha_cumprod = one if to_one else made.alphas_cumprod[0]
    made.set_timesteps(steps)
    if hasattr(made, "sigmas"):
        made.sigmas = made.sigmas.double()
    return made


def exact_alphas_cumprod(config):
    """Compute prod(1 - beta) in float64, for the one beta schedule that these models share."""
    assert config["beta_schedule"] == "scaled_linear"
    root = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000)
    return np.cumprod(1.0 - root**2)


def diffusers_trajectory(made, noise, prediction_type, eta=None):
    """Sample as StableDiffusionPipeline does: the latents after each network evaluation."""
    stream = (torch.from_numpy(n) for n in itertools.chain(noise, itertools.repeat(noise[-1])))
    x = next(stream) * made.init_noise_sigma
    made.register_to_config(prediction_type=prediction_type)
    module = sys.modules[type(made).__module__]
    extra = {} if eta is None else {"eta": eta}
    seen = []
    # Some classes only draw by themselves: what they draw with is replaced by the injected noise.
    # DEIS calls numpy's log on tensors, which numpy 2 warns of.
    with (
        quiet(),
        mock.patch.object(
            module, "randn_tensor", side_effect=lambda *_, **__: next(stream), create=True
        ),
    ):
        for timestep in made.timesteps:
            seen_by_network = made.scale_model_input(x, timestep)
            out = torch.from_numpy(network(seen_by_network.numpy(), float(timestep)))
            x = made.step(out, timestep, x, return_dict=False, **extra)[0]
            seen.append(x.numpy())
    return seen


def on_grid(made, grid: Schedule):
    """Give diffusers' integrator a grid that its own class does not lay."""
    made.sigmas = torch.from_numpy(grid.sigmas)
    made.timesteps = torch.from_numpy(grid.timesteps)
    return made


def doubled(grid: Schedule):
    """Repeat all but the first level, as diffusers' Heun lists its two evaluations a step."""
    sigmas, timesteps = grid.sigmas, grid.timesteps
    return Schedule(
        sigmas=np.concatenate([sigmas[:1], np.repeat(sigmas[1:-1], 2), sigmas[-1:]]),
        timesteps=np.concatenate([timesteps[:1], np.repeat(timesteps[1:], 2)]),
        initial_scale=grid.initial_scale,
    )


# --- k-diffusion ---------------------------------------------------------------------------------


def k_diffusion(name):
    """Load one module of k-diffusion without importing the package.

    The package's own import wants torchvision, torchdiffeq, clip and more; the two modules used
    here need of all that a single function, which is given to them.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion")
    folder = Path(next(iter(spec.submodule_search_locations)))
    package, utils = types.ModuleType("k_light"), types.ModuleType("k_light.utils")
    package.__path__ = [str(folder)]
    package.utils = utils
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    ode = types.ModuleType("torchdiffeq")
    ode.odeint = None
    stubs = {"k_light": package, "k_light.utils": utils, "torchdiffeq": ode}
    with mock.patch.dict(sys.modules, stubs):
        return importlib.import_module(f"k_light.{name}")


def k_trajectory(function, grid: Schedule, noise, prediction_type, **options):
    """Run a k-diffusion sampler on our grid: the latents at each step's start and the result."""
    alphas = exact_alphas_cumprod(CONFIGS["sd15"])
    trained = np.log((1 - alphas) / alphas) / 2

    def model(x, sigma):
        level = float(sigma[0])
        timestep = np.interp(np.log(level), trained, np.arange(len(trained)))
        (laid,) = np.nonzero(np.isclose(grid.sigmas[:-1], level, rtol=1e-9, atol=0))
        if len(laid):
            timestep = grid.timesteps[laid[0]]
        out = denoised_by(prediction_type, x.numpy(), level, timestep)
        return torch.from_numpy(out)

    stream = (torch.from_numpy(n) for n in noise)
    x = next(stream) * grid.initial_scale
    if "noise_sampler" not in options and function.__name__.endswith(("ancestral", "sde")):
        options["noise_sampler"] = lambda *_: next(stream)
    seen = []
    result = function(
        model,
        x,
        torch.from_numpy(grid.sigmas),
        callback=lambda state: seen.append(state["x"].numpy().copy()),
        disable=True,
        **options,
    )
    return [*seen[1:], result.numpy()]


# --- textbook ------------------------------------------------------------------------------------


def textbook_ddim(grid: Schedule, noise, prediction_type, eta):
    """DDIM, arXiv 2010.02502 equations 12 and 16, in the paper's own variables."""
    stream = iter(noise)
    alphas = 1.0 / (1.0 + grid.sigmas**2)
    z = next(stream)
    seen = []
    for i, timestep in enumerate(grid.timesteps):
        a, a_next = alphas[i], alphas[i + 1]
        x0 = denoised_by(prediction_type, z / np.sqrt(a), grid.sigmas[i], timestep)
        eps = (z - np.sqrt(a) * x0) / np.sqrt(1 - a)
        spread = eta * np.sqrt((1 - a_next) / (1 - a)) * np.sqrt(1 - a / a_next)
        z = np.sqrt(a_next) * x0 + np.sqrt(max(0.0, 1 - a_next - spread**2)) * eps
        if spread:
            z = z + spread * next(stream)
        seen.append(z)
    return seen


def textbook_plms(grid: Schedule, noise, prediction_type):
    """PLMS, arXiv 2202.09778: predictions combined (for "sample" slopes), its first step twice."""
    x = next(iter(noise)) * grid.initial_scale
    sigmas, outs, seen = grid.sigmas, [], []

    def predicted(x, i):
        if prediction_type == "sample":
            return (x - denoised_by("sample", x, sigmas[i], grid.timesteps[i])) / sigmas[i]
        return network(x / np.sqrt(1 + sigmas[i] ** 2), grid.timesteps[i])

    def stepped(x, i, out):
        if prediction_type == "v_prediction":
            a = 1 / (1 + sigmas[i] ** 2)
            out = np.sqrt(a) * out + np.sqrt(1 - a) * np.sqrt(a) * x
        return x + (sigmas[i + 1] - sigmas[i]) * out

    for i in range(len(grid.timesteps)):
        outs.append(predicted(x, i))
        a, b, c, d = [*outs[::-1], 0, 0, 0][:4]
        mean = (a, (3 * a - b) / 2, (23 * a - 16 * b + 5 * c) / 12)
        mean = (*mean, (55 * a - 59 * b + 37 * c - 9 * d) / 24)[min(i, 3)]
        seen.append(stepped(x, i, mean))
        if i == 0 and len(grid.timesteps) > 1:
            seen.append(stepped(x, 0, (a + predicted(seen[-1], 1)) / 2))
        x = seen[-1]
    return seen


def textbook_tcd(grid: Schedule, noise, prediction_type, eta):
    """Trajectory consistency sampling, arXiv 2402.19159 algorithm 4, from the paper's variables."""
    stream = iter(noise)
    trained = exact_alphas_cumprod(CONFIGS["sd15"])
    alphas = 1.0 / (1.0 + grid.sigmas**2)
    z = next(stream)
    seen = []
    for i, timestep in enumerate(grid.timesteps):
        last = i + 1 == len(grid.timesteps)
        middle = trained[0 if last else int((1 - eta) * grid.timesteps[i + 1])]
        x0 = denoised_by(prediction_type, z / np.sqrt(alphas[i]), grid.sigmas[i], timestep)
        eps = (z - np.sqrt(alphas[i]) * x0) / np.sqrt(1 - alphas[i])
        z = np.sqrt(middle) * x0 + np.sqrt(1 - middle) * eps
        if eta and not last:
            share = alphas[i + 1] / middle
            z = np.sqrt(share) * z + np.sqrt(1 - share) * next(stream)
        seen.append(z)
    return seen


def textbook_lcm(grid: Schedule, noise, prediction_type, scaling=10.0):
    """Multistep latent consistency sampling, arXiv 2310.04378 algorithm 3."""
    stream = iter(noise)
    alphas = 1.0 / (1.0 + grid.sigmas**2)
    z = next(stream)
    seen = []
    for i, timestep in enumerate(grid.timesteps):
        x0 = denoised_by(prediction_type, z / np.sqrt(alphas[i]), grid.sigmas[i], timestep)
        square = (timestep * scaling) ** 2 + 0.5**2
        z = 0.5**2 / square * z + timestep * scaling / np.sqrt(square) * x0
        if grid.sigmas[i + 1]:
            z = np.sqrt(alphas[i + 1]) * z + np.sqrt(1 - alphas[i + 1]) * next(stream)
        seen.append(z)
    return seen
