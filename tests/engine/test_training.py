"""Reading of scheduler configurations: the numbers, and what is refused."""

import math

import diffusers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.training import Training
from tests.engine import oracle


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_levels_equal_diffusers(beta_schedule, zero_snr):
    config = {"beta_start": 0.001, "beta_end": 0.015, "beta_schedule": beta_schedule}
    config |= {"rescale_betas_zero_snr": zero_snr, "_class_name": "EulerDiscreteScheduler"}
    with oracle.quiet():
        expected = diffusers.EulerDiscreteScheduler.from_config(config).alphas_cumprod.numpy()
    got = Training.from_config(config).alphas_cumprod
    # float32 products of 1000 factors; the rescaled tail is a small difference of large numbers
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-7 if zero_snr else 1e-12)
    assert (np.diff(got) < 0).all()


def test_trained_betas_are_taken_as_they_are():
    betas = [0.1, 0.2, 0.5]
    config = {"num_train_timesteps": 3, "trained_betas": betas}
    got = Training.from_config(config).alphas_cumprod
    np.testing.assert_allclose(got, [0.9, 0.72, 0.36], rtol=1e-12)


@pytest.mark.parametrize("model", oracle.CONFIGS)
def test_published_configurations_are_read(model):
    config = oracle.CONFIGS[model]
    training = Training.from_config(config)
    assert training.prediction_type == config["prediction_type"]
    assert training.sigmas[-1] == pytest.approx(14.6146, abs=1e-4)
    assert training.sigmas[0] == pytest.approx(0.0292, abs=1e-4)
    assert training.default_schedule == config["timestep_spacing"]


DEFAULTS = [
    ("DDIMScheduler", {}, "ddim", "leading"),
    ("DEISMultistepScheduler", {}, "deis", "linspace"),
    ("DPMSolverMultistepScheduler", {}, "dpmpp_2m", "linspace"),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
        "dpmpp_2m_sde",
        "karras",
    ),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, "dpmpp_2m", "exponential"),
    ("EulerAncestralDiscreteScheduler", {}, "euler_a", "linspace"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "euler", "trailing"),
    ("HeunDiscreteScheduler", {"use_beta_sigmas": True}, "heun", "beta"),
    ("KDPM2AncestralDiscreteScheduler", {}, "dpm2_a", "linspace"),
    ("KDPM2DiscreteScheduler", {"use_karras_sigmas": True}, "dpm2", "karras"),
    ("LCMScheduler", {}, "lcm", "leading"),
    ("LMSDiscreteScheduler", {}, "lms", "linspace"),
    ("PNDMScheduler", {}, "dpmpp_2m", "leading"),
    ("TCDScheduler", {}, "tcd", "leading"),
    ("UniPCMultistepScheduler", {"use_exponential_sigmas": True}, "unipc", "exponential"),
]


@pytest.mark.parametrize(("class_name", "keys", "sampler", "spacing"), DEFAULTS)
def test_the_class_names_sampler_and_schedule(class_name, keys, sampler, spacing):
    training = Training.from_config({"_class_name": class_name} | keys)
    assert (training.default_sampler, training.default_schedule) == (sampler, spacing)
    if not keys:  # the class's own default
        with oracle.quiet():
            made = getattr(diffusers, class_name)()
        assert made.config.timestep_spacing == training.timestep_spacing
        assert made.config.get("set_alpha_to_one", True) == training.set_alpha_to_one


def test_a_missing_or_zero_offset_becomes_one_as_in_the_pipeline():
    assert Training.from_config({}).steps_offset == 1
    assert Training.from_config({"steps_offset": 0}).steps_offset == 1
    assert Training.from_config({"steps_offset": 3}).steps_offset == 3


def test_a_short_training_bounds_the_steps_of_distillation():
    assert Training.from_config({"num_train_timesteps": 4}).original_inference_steps == 4


NONSENSE = [
    {"num_train_timesteps": 0},
    {"num_train_timesteps": 10**9},
    {"num_train_timesteps": True},
    {"num_train_timesteps": 1000.0},
    {"beta_start": -0.1},
    {"beta_start": float("nan")},
    {"beta_start": 0.5, "beta_end": 0.1},
    {"beta_end": 1.0},
    {"beta_end": "0.012"},
    {"beta_schedule": "sigmoid"},
    {"prediction_type": "flow_prediction"},
    {"timestep_spacing": ["linspace"]},
    {"steps_offset": 1000},
    {"use_karras_sigmas": "yes"},
    {"final_sigmas_type": "denoise_to_zero"},
    {"trained_betas": [0.1, 0.2]},
    {"trained_betas": "eval"},
    {"num_train_timesteps": 2, "trained_betas": [0.1, None]},
    {"num_train_timesteps": 2, "trained_betas": [0.1, 1.0]},
    {"solver_order": 4},
    {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    {"thresholding": True},
    {"use_flow_sigmas": True},
    {"timestep_type": "continuous"},
    {"interpolation_type": "log_linear"},
]


@pytest.mark.parametrize("config", NONSENSE, ids=str)
def test_nonsense_is_refused(config):
    with pytest.raises(BundleError, match=r"scheduler_config\.json has"):
        Training.from_config(config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [*Training.__dataclass_fields__, "_class_name", "use_lu_lambdas", "thresholding"]
)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_any_json_object_gives_usable_levels_or_a_bundle_error(config):
    try:
        training = Training.from_config(config)
    except BundleError:
        return
    assert np.isfinite(training.sigmas).all()
    assert training.sigmas[0] > 0
    assert not math.isnan(training.timestep_scaling)
