"""The denoiser: prediction types by their definitions, guidance, and what the network is shown."""

import numpy as np
import pytest

from engine.denoiser import Denoiser
from engine.errors import BundleError
from engine.moment import Moment

SIGMAS = (0.03, 0.7, 1.0, 14.6)


def at(sigma, timestep):
    return Moment(0, 0, 1, sigma, timestep)


def image(seed, shape=(1, 4, 8, 8)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_network_gives_the_clean_latents_back(prediction_type, sigma):
    """With z = a x0 + s eps and a**2 + s**2 = 1, the answer is eps, x0 or v = a eps - s x0."""
    x0, eps = image(1), image(2)
    a = 1 / np.sqrt(1 + sigma**2)
    s = sigma * a
    answers = {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}

    def predict(z, moment):
        np.testing.assert_allclose(z, a * x0 + s * eps, rtol=1e-4, atol=1e-5)
        assert moment.timestep == 321.5
        return answers[prediction_type].astype(np.float32)

    x = (x0 + np.float32(sigma) * eps).astype(np.float32)
    denoised = Denoiser(predict, prediction_type, 1.0)(x, at(sigma, 321.5))
    assert denoised.dtype == np.float32
    np.testing.assert_allclose(denoised, x0, atol=3e-6 * max(1.0, sigma))


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.5, 7.5])
def test_guidance_runs_from_the_first_half_towards_the_second(scale):
    unconditional, conditional, x = image(1), image(2), image(3)
    shown = []

    def predict(z, moment):
        shown.append(z.copy())
        return np.concatenate([unconditional, conditional])

    denoised = Denoiser(predict, "epsilon", scale)(x, at(2.0, 5.0))
    guided = unconditional + scale * (conditional - unconditional)
    np.testing.assert_allclose(denoised, x - 2.0 * guided, rtol=1e-5, atol=1e-5)
    assert shown[0].shape == (1, 4, 8, 8)
    assert shown[0].dtype == np.float32


def test_several_conditional_predictions_each_pull_with_their_weight():
    """Composable diffusion, arXiv 2206.01714, equation 11."""
    unconditional, first, second, x = image(1), image(2), image(3), image(4)
    answer = np.concatenate([unconditional, first, second])
    denoised = Denoiser(lambda z, moment: answer, "epsilon", 4.0, (1.0, -0.5))(x, at(2.0, 5.0))
    guided = unconditional + 4.0 * (first - unconditional) - 2.0 * (second - unconditional)
    np.testing.assert_allclose(denoised, x - 2.0 * guided, rtol=1e-5, atol=1e-5)


def test_a_single_prediction_is_taken_as_it_is():
    x, answer = image(1), image(2)
    denoised = Denoiser(lambda z, moment: answer, "epsilon", 7.5)(x, at(2.0, 1.0))
    np.testing.assert_allclose(denoised, x - 2.0 * answer, rtol=1e-6, atol=1e-6)


def test_a_network_may_answer_in_a_buffer_of_its_own():
    """A session may overwrite its output on its next run; the denoiser leaves it alone."""
    output = np.empty((2, 4, 8, 8), dtype=np.float32)

    def predict(z, moment):
        output[:] = z
        return output

    denoiser = Denoiser(predict, "v_prediction", 4.0)
    first = denoiser(image(1), at(1.5, 10.0)).copy()
    kept = output.copy()
    again = denoiser(image(1), at(1.5, 10.0))
    assert np.array_equal(first, again)
    assert np.array_equal(output, kept)


def test_x_is_left_alone_and_sizes_may_change():
    denoiser = Denoiser(lambda z, moment: np.concatenate([z, z]), "epsilon", 2.0)
    for shape in ((1, 4, 8, 8), (1, 4, 16, 8), (1, 4, 8, 8)):
        x = image(4, shape)
        before = x.copy()
        assert denoiser(x, at(3.0, 1.0)).shape == shape
        assert np.array_equal(x, before)


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(BundleError, match="flow"):
        Denoiser(lambda z, moment: np.concatenate([z, z]), "flow", 1.0)
