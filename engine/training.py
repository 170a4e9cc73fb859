"""The noise levels that a model was trained on, read from its scheduler_config.json.

Only numbers are taken from the file, each with a type and bounds; nothing in it is executed.
The file also names the scheduler class that its authors sample with: `default_sampler` and
`default_schedule` say which of ours does the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError

__all__ = ["PREDICTION_TYPES", "Training"]

PREDICTION_TYPES: Final = ("epsilon", "sample", "v_prediction")
BETA_SCHEDULES: Final = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS: Final = ("leading", "linspace", "trailing")

MAX_TIMESTEPS: Final = 10_000  # ten times what any known model was trained with

# scheduler class -> our sampler, and the spacing that the class takes where its file names none.
# SA and the single-step DPM solvers integrate the same equation: dpmpp_2m stands in. So it does for
# PNDM, which needs twice the steps; and ddim for DDPM, which is made for all of the training's.
_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "DDIMParallelScheduler": ("ddim", "leading"),
    "DDIMScheduler": ("ddim", "leading"),
    "DDPMParallelScheduler": ("ddim", "leading"),
    "DDPMScheduler": ("ddim", "leading"),
    "DEISMultistepScheduler": ("deis", "linspace"),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "linspace"),
    "DPMSolverSDEScheduler": ("dpmpp_sde", "linspace"),
    "DPMSolverSinglestepScheduler": ("dpmpp_2m", "linspace"),
    "EulerAncestralDiscreteScheduler": ("euler_a", "linspace"),
    "EulerDiscreteScheduler": ("euler", "linspace"),
    "HeunDiscreteScheduler": ("heun", "linspace"),
    "KDPM2AncestralDiscreteScheduler": ("dpm2_a", "linspace"),
    "KDPM2DiscreteScheduler": ("dpm2", "linspace"),
    "LCMScheduler": ("lcm", "leading"),
    "LMSDiscreteScheduler": ("lms", "linspace"),
    "PNDMScheduler": ("dpmpp_2m", "leading"),
    "SASolverScheduler": ("dpmpp_2m", "linspace"),
    "TCDScheduler": ("tcd", "leading"),
    "UniPCMultistepScheduler": ("unipc", "linspace"),
}

# What changes the arithmetic in a way that no table here expresses: refused rather than ignored.
_REFUSED: Final[tuple[tuple[str, object], ...]] = (
    ("interpolation_type", "log_linear"),
    ("thresholding", True),
    ("timestep_type", "continuous"),
    ("use_flow_sigmas", True),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Hold what sampling needs of a scheduler_config.json, under the names that diffusers uses.

    num_train_timesteps: T. beta_start, beta_end, beta_schedule or trained_betas: the variances.
    steps_offset, timestep_spacing, use_*_sigmas, final_sigmas_type, set_alpha_to_one: how the
    authors lay the timesteps. solver_order, solver_type, lower_order_final, euler_at_final: how
    they integrate. original_inference_steps, timestep_scaling: a latent consistency model's own.
    family: the manifest's, since the file does not say it (`Bundle.open` writes it in).
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    trained_betas: tuple[float, ...] = ()
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 1
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    final_sigmas_type: str = "zero"
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False
    clip_sample: bool = False
    solver_order: int = 2
    solver_type: str = ""
    lower_order_final: bool = True
    euler_at_final: bool = False
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    family: str = "sd1"
    class_name: str = "DPMSolverMultistepScheduler"
    algorithm_type: str = "dpmsolver++"

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Training":
        """Read a scheduler_config.json that was parsed into a mapping.

        What is absent or null gets the default of the class it names. Raises BundleError where a
        value has the wrong type, is out of bounds, or asks for what no sampler here can do.
        """
        fields = _Fields(config)
        class_name = fields.choice("_class_name", tuple(_CLASSES), "DPMSolverMultistepScheduler")
        for key, value in _REFUSED:
            if config.get(key) == value:
                raise BundleError(
                    f"scheduler_config.json has {key} = {value!r}, which no sampler here follows"
                )
        count = fields.whole("num_train_timesteps", 1000, 1, MAX_TIMESTEPS)
        tiny = 1e-9  # a variance of 0 would make the first noise level 0
        start = fields.number("beta_start", 0.0001, tiny, 0.999)
        return cls(
            num_train_timesteps=count,
            beta_start=start,
            beta_end=fields.number("beta_end", max(0.02, start), start, 0.999),
            beta_schedule=fields.choice("beta_schedule", BETA_SCHEDULES, "linear"),
            trained_betas=fields.numbers("trained_betas", count, tiny, 0.999),
            prediction_type=fields.choice("prediction_type", PREDICTION_TYPES, "epsilon"),
            timestep_spacing=fields.choice("timestep_spacing", SPACINGS, _CLASSES[class_name][1]),
            # StableDiffusionPipeline raises a missing or 0 offset to 1, as the models were trained.
            steps_offset=max(1, fields.whole("steps_offset", 1, 0, count - 1)),
            use_karras_sigmas=fields.flag("use_karras_sigmas", default=False),
            # uniform log-SNR (use_lu_lambdas) is the exponential spacing by another name
            use_exponential_sigmas=fields.flag("use_exponential_sigmas", default=False)
            or fields.flag("use_lu_lambdas", default=False),
            use_beta_sigmas=fields.flag("use_beta_sigmas", default=False),
            final_sigmas_type=fields.choice("final_sigmas_type", ("sigma_min", "zero"), "zero"),
            set_alpha_to_one=fields.flag("set_alpha_to_one", default=class_name != "PNDMScheduler"),
            rescale_betas_zero_snr=fields.flag("rescale_betas_zero_snr", default=False),
            clip_sample=fields.flag("clip_sample", default=False),
            solver_order=fields.whole("solver_order", 2, 1, 3),
            solver_type=fields.choice(
                "solver_type", ("bh1", "bh2", "heun", "logrho", "midpoint"), ""
            ),
            lower_order_final=fields.flag("lower_order_final", default=True),
            euler_at_final=fields.flag("euler_at_final", default=False),
            original_inference_steps=fields.whole(
                "original_inference_steps", min(50, count), 1, count
            ),
            timestep_scaling=fields.number("timestep_scaling", 10.0, 1e-3, 1e6),
            class_name=class_name,
            algorithm_type=fields.choice(
                "algorithm_type",
                ("deis", "dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
                "dpmsolver++",
            ),
        )

    @property
    def default_sampler(self) -> str:
        """Name our sampler that does what the configured scheduler class does, or comes nearest."""
        sampler = _CLASSES[self.class_name][0]
        stochastic = self.algorithm_type.startswith("sde-")
        return "dpmpp_2m_sde" if sampler == "dpmpp_2m" and stochastic else sampler

    @property
    def default_schedule(self) -> str:
        """Name the spacing that the configuration asks for."""
        for name in ("karras", "exponential", "beta"):
            if getattr(self, f"use_{name}_sigmas"):
                return name
        return self.timestep_spacing

    @property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """Compute the share of signal variance left at each timestep: f64[T], falling.

        With rescale_betas_zero_snr after algorithm 1 of arXiv 2305.08891; the last value is then
        2**-24 (as in diffusers; less where the one before is less) and not 0: sigmas stay finite.
        """
        alphas = np.cumprod(1.0 - self._betas()).astype(np.float64)
        if self.rescale_betas_zero_snr and self.num_train_timesteps > 1:
            root = np.sqrt(alphas)
            alphas[:] = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
            alphas[-1] = min(2.0**-24, float(alphas[-2]) / 2)
        return alphas

    @property
    def sigmas(self) -> NDArray[np.float64]:
        """Compute noise over signal at each timestep, sqrt((1 - a) / a): f64[T], rising."""
        alphas = self.alphas_cumprod
        return np.sqrt((1.0 - alphas) / alphas)

    def _betas(self) -> NDArray[np.float64]:
        count = self.num_train_timesteps
        if self.trained_betas:
            return np.array(self.trained_betas, dtype=np.float64)
        if self.beta_schedule == "linear":
            return np.linspace(self.beta_start, self.beta_end, count).astype(np.float64)
        if self.beta_schedule == "scaled_linear":
            start, end = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
            return np.linspace(start, end, count).astype(np.float64) ** 2
        # the cosine schedule of arXiv 2102.09672, equation 17, its betas capped at 0.999
        bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2
        betas: NDArray[np.float64] = np.minimum(1.0 - bar[1:] / bar[:-1], 0.999)
        return betas


class _Fields:
    """Read typed, bounded values out of a parsed JSON object."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config

    def _refuse(self, key: str, got: object, allowed: str) -> BundleError:
        shown = repr(got)[:40]  # a hostile file must not fill the terminal
        return BundleError(f"scheduler_config.json has {key} = {shown}; {allowed} is allowed")

    def number(self, key: str, default: float, low: float, high: float) -> float:
        got = self._config.get(key)
        if got is None:
            return default
        if isinstance(got, bool) or not isinstance(got, int | float) or not low <= got <= high:
            raise self._refuse(key, got, f"a number from {low:g} to {high:g}")
        return float(got)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        got = self._config.get(key)
        if got is None:
            return default
        if isinstance(got, bool) or not isinstance(got, int) or not low <= got <= high:
            raise self._refuse(key, got, f"a whole number from {low} to {high}")
        return got

    def flag(self, key: str, *, default: bool) -> bool:
        got = self._config.get(key)
        if got is None:
            return default
        if not isinstance(got, bool):
            raise self._refuse(key, got, "true or false")
        return got

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        got = self._config.get(key)
        if got is None:
            return default
        if not isinstance(got, str) or got not in allowed:
            raise self._refuse(key, got, f"one of {', '.join(allowed)}")
        return got

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        got = self._config.get(key)
        if got is None:
            return ()
        values = cast("list[object]", got) if isinstance(got, list) else list[object]()
        if len(values) != count or None in values:
            raise self._refuse(key, "something else", f"a list of {count} numbers")
        return tuple(_Fields({key: value}).number(key, low, low, high) for value in values)
