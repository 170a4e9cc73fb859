"""The loop in float32: against the table in float64, and against diffusers as users run it."""

import gc
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from engine.denoiser import Denoiser
from engine.loop import integrate
from engine.noise import noise_source
from engine.request import DEFAULT_ETA
from engine.samplers import METHODS, Table, tabulate
from engine.schedule import Training
from tests.engine import oracle


class Recorded:
    """A source that hands out what it is given and counts."""

    def __init__(self, pieces):
        self.pieces, self.drawn = pieces, 0

    def normal(self, shape):
        self.drawn += 1
        return self.pieces[self.drawn - 1].reshape(shape).astype(np.float32)


def pure(shape):
    return np.zeros(shape, dtype=np.float32)


def denoiser(prediction_type="epsilon", scale=1.0):
    return Denoiser(
        lambda z, moment: oracle.network(z, moment.timestep).astype(np.float32),
        prediction_type,
        scale,
    )


@pytest.mark.parametrize("sampler", METHODS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_x_equals_the_float64_table(sampler, steps):
    training = Training(set_alpha_to_one=False)
    table = tabulate(sampler, training, "leading", steps, 1.0)
    noise = oracle.noises(steps, 2 * steps)
    expected = oracle.ours(table, noise, "epsilon")
    expected[-1] = expected[-1] * table.final_scale
    source = Recorded(noise)
    got = [
        (row, x.copy()) for row, x, _ in integrate(table, source, pure(oracle.SHAPE), denoiser())
    ]
    assert [row for row, _ in got] == list(range(len(table.sigmas)))
    assert source.drawn == 1 + np.count_nonzero(table.noise)
    for (_, a), b in zip(got, expected, strict=True):
        assert a.dtype == np.float32
        # 1e-6 a step; eps divides by small alphas at the first level
        assert np.abs(a - b).max() <= 3e-5 * np.abs(b).max()


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "dpmpp_2m_sde", "euler", "euler_a", "lcm"])
@pytest.mark.parametrize("model", ["pocket", "sd15"])
def test_a_guided_run_with_a_seed_equals_diffusers_float32(sampler, model):
    """StableDiffusionPipeline's loop: its own tables, torch.randn, two halves, guidance 3.5."""
    config = oracle.CONFIGS[model]
    if sampler == "ddim":
        config = config | {"timestep_spacing": "leading"}  # the one that its class gets right
    # lcm jumps to the end in each step: on a synthetic network 20 of them amplify 1e-6 to 0.09
    steps = 4 if sampler == "lcm" else 20
    with oracle.quiet():
        flags = {"algorithm_type": "sde-dpmsolver++"} if sampler == "dpmpp_2m_sde" else {}
        made = oracle.DIFFUSERS[sampler].from_config(config | flags)
        made.set_timesteps(steps)
    shape, scale = (1, 4, 16, 16), 3.5
    generator = torch.Generator().manual_seed(1234)
    x = torch.randn(shape, generator=generator) * made.init_noise_sigma
    draws = {"generator": generator} if sampler not in ("dpmpp_2m", "euler") else {}
    for timestep in made.timesteps:
        seen = made.scale_model_input(torch.cat([x, x]), timestep)
        out = torch.from_numpy(halves(seen.numpy(), float(timestep)))
        unconditional, conditional = out.chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        x = made.step(guided, timestep, x, return_dict=False, **draws)[0]
    training = Training.from_config(config)
    eta = DEFAULT_ETA.get(sampler, 0.0)
    table = tabulate(sampler, training, training.timestep_spacing, steps, eta)
    guided_denoiser = Denoiser(
        lambda z, moment: halves(np.concatenate([z, z]), moment.timestep),
        training.prediction_type,
        scale,
    )
    *_, (_, latents, _) = integrate(
        table, noise_source("torch", 1234), pure(shape), guided_denoiser
    )
    error = np.abs(latents - x.numpy()).max() / np.abs(x.numpy()).max()
    # diffusers' float32 sigmas alone are off by up to 1.3e-5
    assert error < 2e-4, f"relative error {error:.1e}"


def halves(z, timestep):
    """Answer differently for the two halves, as a prompt and an empty one do."""
    out = oracle.network(z, timestep)
    out[1:] += 0.2 * np.sin(5 * z[1:])
    return out.astype(np.float32)


def one_row_table(**changes):
    fields = {
        "sigmas": np.array([2.0, 1.0, 0.5]),
        "timesteps": np.array([900.0, 500.0, 100.0]),
        "steps": np.arange(3),
        "x": np.array([[0.5, 0.0, 0.0], [0.25, 2.0, 0.0], [1.0, 3.0, 5.0]]),
        "denoised": np.array([[1.0, 0.0], [1.0, 7.0], [1.0, 11.0]]),
        "noise": np.array([0.0, 13.0, 0.0]),
        "initial_scale": 2.0,
        "final_scale": 0.5,
    }
    return Table(**fields | changes)


def test_terms_are_the_ones_that_the_table_means():
    """By hand, on one number: x[k] is k rows old, denoised[k] as well, noise where it is not 0."""
    answers = iter([0.1, 0.2, 0.3])
    told = []

    def denoise(x, moment):
        told.append((float(x[0, 0, 0, 0]), *moment))
        return np.full(x.shape, next(answers), dtype=np.float32)

    source = Recorded([np.full((1, 1, 1, 1), v) for v in (1.0, 10.0)])
    got = [
        float(x[0, 0, 0, 0])
        for _, x, _ in integrate(one_row_table(), source, pure((1,) * 4), denoise)
    ]
    x0 = 2.0
    x1 = 0.5 * x0 + 0.1
    x2 = 0.25 * x1 + 2 * x0 + 0.2 + 7 * 0.1 + 13 * 10.0
    x3 = 0.5 * (x2 + 3 * x1 + 5 * x0 + 0.3 + 11 * 0.2)
    assert got == pytest.approx([x1, x2, x3], rel=1e-6)
    assert [t[1:] for t in told] == [
        (0, 0, 3, 2.0, 900.0),
        (1, 1, 3, 1.0, 500.0),
        (2, 2, 3, 0.5, 100.0),
    ]
    assert [t[0] for t in told] == pytest.approx([x0, x1, x2], rel=1e-6)


def test_what_is_yielded_holds_until_the_next_item():
    table = tabulate("dpmpp_2m", Training(), "karras", 6, 0.0)
    source = noise_source("torch", 0)
    for _, x, denoised in integrate(table, source, pure(oracle.SHAPE), denoiser()):
        assert np.isfinite(x).all()
        assert np.isfinite(denoised).all()
        assert not np.shares_memory(x, denoised)


def test_a_denoisers_buffer_may_be_reused():
    """The loop keeps predictions of earlier rows though the denoiser overwrites its own."""
    table = tabulate("dpmpp_2m", Training(), "karras", 6, 0.0)
    shared, fresh = denoiser(), denoiser()

    def run(denoise):
        *_, (_, x, _) = integrate(table, noise_source("torch", 0), pure(oracle.SHAPE), denoise)
        return x.copy()

    assert np.array_equal(run(shared), run(lambda *a: fresh(*a).copy()))


def test_nothing_is_computed_before_it_is_asked_for():
    calls = []

    def denoise(x, moment):
        calls.append(moment.timestep)
        return x

    run = integrate(tabulate("euler", Training(), "karras", 5, 0.0), noise_source("torch", 0),
                    pure(oracle.SHAPE), denoise)  # fmt: skip
    assert calls == []
    next(run)
    next(run)
    assert len(calls) == 2
    run.close()
    assert len(calls) == 2


def test_a_step_allocates_no_latents():
    """Buffers are made once: after two steps, memory does not grow by a tenth of one latent."""
    shape = (1, 4, 64, 64)
    answer = np.zeros((2, *shape[1:]), dtype=np.float32)
    guided = Denoiser(lambda z, moment: answer, "v_prediction", 3.5)
    table = tabulate("dpmpp_2m", Training(), "karras", 12, 0.0)
    run = integrate(table, noise_source("torch", 0), pure(shape), guided)
    next(run)
    next(run)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(8):
            next(run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < answer.nbytes / 2 / 10
    assert sys.getrefcount(answer) < 20


def test_a_start_is_what_the_first_noise_is_added_to():
    start = np.full((1, 1, 1, 1), 5.0, dtype=np.float32)
    seen = []

    def denoise(x, moment):
        seen.append(float(x[0, 0, 0, 0]))
        return x

    next(integrate(one_row_table(), Recorded([np.full((1,) * 4, 3.0)]), start, denoise))
    assert seen == [5.0 + 2.0 * 3.0]  # initial_scale is 2


def test_what_is_written_into_the_latents_is_what_the_next_row_sees():
    """Inpainting puts known pixels back between rows."""
    seen = []

    def denoise(x, moment):
        seen.append(float(x[0, 0, 0, 0]))
        return x

    source = Recorded([np.ones((1,) * 4)] * 2)
    for row, x, _ in integrate(one_row_table(), source, pure((1,) * 4), denoise):
        x[:] = 100.0 + row
    assert seen[1:] == [100.0, 101.0]
