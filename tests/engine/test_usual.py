"""The settings of a model follow from how it was distilled; published scheduler files as given."""

import pytest

from engine.training import Training
from engine.usual import usual_settings

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TURBO = NOISE | {"prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "trailing"}
# stabilityai/sd-turbo and stabilityai/sdxl-turbo, scheduler/scheduler_config.json
SD_TURBO = TURBO | {"_class_name": "EulerDiscreteScheduler", "timestep_type": "discrete"}
SDXL_TURBO = TURBO | {"_class_name": "EulerAncestralDiscreteScheduler"}
LCM = NOISE | {"_class_name": "LCMScheduler", "original_inference_steps": 50}
SDXL = TURBO | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
ZERO_SNR = SD_TURBO | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("config", "embedded", "wanted"),
    [
        (SD_TURBO, False, ("euler", "trailing", 4, 1.0)),
        (SDXL_TURBO, False, ("euler_a", "trailing", 4, 1.0)),
        (LCM, True, ("lcm", "leading", 4, 8.0)),
        (LCM, False, ("lcm", "leading", 4, 1.0)),  # an LCM-LoRA that was merged
        (SDXL, False, ("euler", "leading", 25, 6.5)),
        (ZERO_SNR, False, ("euler", "trailing", 25, 6.5)),
        (SD_TURBO | {"prediction_type": "v_prediction"}, False, ("euler", "trailing", 25, 6.5)),
    ],
)
def test_settings_of_published_models(config, embedded, wanted):
    found = usual_settings(Training.from_config(config), 6.5, embedded=embedded)
    assert (found.sampler, found.schedule, found.steps, found.guidance_scale) == wanted
