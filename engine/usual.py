"""What a request gets where the user says nothing, read off how the model was made."""

from engine.manifest import Defaults
from engine.training import Training

__all__ = ["usual_settings"]

STEPS = 25  # DPM++ 2M changes little beyond
# A latent consistency model: 1 to 8 steps (arXiv 2310.04378); the authors show 4, at a scale of 8.
FEW_STEPS = 4
DISTILLED_SCALE = 8.0
OFF = 1.0  # guidance is in the weights already
CONSISTENCY = "LCMScheduler"
# Adversarially distilled models (SD-Turbo and SDXL-Turbo, arXiv 2311.17042) name one of these with
# trailing timesteps. Zero-SNR models are trailing too, predict v, and need every step.
TURBO = ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler")


def usual_settings(training: Training, guidance_scale: float, *, embedded: bool) -> Defaults:
    """Give the settings of a model. guidance_scale: its family's own, for undistilled ones.

    embedded: the network takes the guidance scale as an input.
    """
    steps, scale = STEPS, guidance_scale
    turbo = (
        training.class_name in TURBO
        and training.timestep_spacing == "trailing"
        and training.prediction_type == "epsilon"
        and not training.rescale_betas_zero_snr
    )
    if training.class_name == CONSISTENCY or turbo:
        steps, scale = FEW_STEPS, OFF
    if embedded:
        scale = DISTILLED_SCALE
    return Defaults(
        sampler=training.default_sampler,
        schedule=training.default_schedule,
        steps=steps,
        guidance_scale=scale,
    )
