"""What is asked of the engine: one frozen value with every field resolved and checked once."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from engine.control import MAX_CONTROLS, Control
from engine.errors import RequestError, unknown_name

__all__ = [
    "DECODERS",
    "DEFAULT_ETA",
    "DEFAULT_SCHEDULE",
    "NOISES",
    "PROMPT_SYNTAXES",
    "SAMPLERS",
    "SCHEDULES",
    "UPSCALERS",
    "VAE_TILINGS",
    "GenerationRequest",
    "check_unicode",
]

SAMPLERS = (
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_a",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s_a",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "euler",
    "euler_a",
    "heun",
    "lcm",
    "lms",
    "pndm",
    "tcd",
    "unipc",
)
SCHEDULES = (
    "ays",
    "beta",
    "exponential",
    "karras",
    "leading",
    "linspace",
    "sgm_uniform",
    "trailing",
)
NOISES = ("philox", "torch")
DECODERS = ("tiny", "vae")
PROMPT_SYNTAXES = ("a1111", "plain")
VAE_TILINGS = ("auto", "off", "on")
UPSCALERS = ("lanczos", "latent")

# What users of each sampler that adds noise expect; the others have no use for eta.
DEFAULT_ETA: Final[Mapping[str, float]] = {
    "ddpm": 1.0,
    "dpm2_a": 1.0,
    "dpmpp_2m_sde": 1.0,
    "dpmpp_2s_a": 1.0,
    "dpmpp_3m_sde": 1.0,
    "dpmpp_sde": 1.0,
    "euler_a": 1.0,
    "lcm": 1.0,
    "tcd": 0.3,  # the authors' gamma for few steps
}

# A parabola through predictions overshoots where the last levels lie far apart, as in spacings by
# timestep, and leaves noise.
DEFAULT_SCHEDULE: Final[Mapping[str, str]] = {"dpmpp_3m_sde": "exponential"}

_WHOLE: Final = (
    "width",
    "height",
    "steps",
    "seed",
    "count",
    "batch_size",
    "clip_skip",
    "reuse_every",
    "kv_downsampling",
    "mask_blur",
    "hires_steps",
    "variation_seed",
)
MAX_SIDE = 8192  # pixels; beyond it latents alone pass the memory of any card
MAX_STEPS = 1000  # the length of the training schedule
MAX_COUNT = 10_000  # pictures a request; a longer run is a queue
MAX_BATCH = 64  # pictures at once; what is won flattens out long before
MAX_SEED = 2**63 - 1  # fits a signed integer in every format that records travel through
MAX_CLIP_SKIP = 12  # layers of CLIP's smaller text encoder
MAX_REUSE = 20  # evaluations; the longest that DeepCache's authors report
MAX_DOWNSAMPLING = 2  # rows and columns to one: what graphs are exported for
MAX_SCALE = 8.0  # of a second pass
MAX_BLUR = 256  # pixels
MAX_PROMPT = 65_536  # characters; about two hundred chunks of 75 tokens
# A Python text can hold halves of surrogate pairs, which no encoding can write.
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """Describe `count` pictures; picture k has seed `seed + k` and equals the one made alone.

    batch_size: how many of them are drawn at once, where they can be (`engine.batches`). More than
    one is quicker, small pictures most of all; what they compute is then equal up to rounding.

    width, height: pixels, multiples of 8. steps: network steps of the sampler, 1 to 1000.
    guidance_scale: 1 means off (the negative prompt then has no effect, nor has it in a latent
    consistency model, which takes the scale as an input). sampler, schedule:
    integrator and spacing, by name. eta: 0 deterministic .. 1 fully stochastic, for samplers that
    add noise; left out, it is what the sampler is known for (ddim 0, euler_a 1). noise: `torch`
    equals torch's CPU generator, `philox` its CUDA generator. decoder: `vae` is the checkpoint's
    own, `tiny` the quick one that a bundle may hold. vae_tiling: `on` decodes in tiles, `auto`
    does above 1.5 million pixels (`engine.tiling`), `off` only where memory does not suffice.
    prompt_syntax: `a1111` gives brackets, AND and BREAK in both prompts their meaning
    (`engine.promptsyntax`), `plain` none. clip_skip: which of the text encoder's layers is used, 1
    the usual one, 2 the one before it. controls: ControlNets
    that steer, each with its picture in `Inputs.controls`. refiner: a bundle of SDXL's refiner,
    which takes over where refiner_switch (0 to 1) of the training's timesteps lie behind; empty:
    none. upscaler: a bundle that enlarges the finished picture; empty: none.
    guidance_start, guidance_end: fractions of the steps between which there is guidance; a latent
    consistency model knows none. reuse_every: every N-th evaluation of the network is whole, in
    between deep features are reused; 1 is off. kv_downsampling: 2 lets the largest self-attentions
    look at every second row and column alone; 1 is off.

    strength: how much of the schedule an init picture is noised and drawn again by, 0 to 1, with or
    without a mask. mask_blur: standard deviation, in pixels, of the seam between what was painted
    and the init picture. hires_scale: a second pass over the picture enlarged so many times, 1 for
    none; `width` and `height` are the first one's. hires_strength: as strength, of that pass.
    hires_steps: of its whole schedule, 0 for `steps`. hires_upscaler: `latent` enlarges latents,
    bilinear; `lanczos` the decoded picture. variation_strength: how far the first noise is turned
    from the seed's to the one of variation_seed, 0 to 1; above 0 picture k has seed `seed` and
    variation_seed + k.
    Raises RequestError on the first value that is not acceptable.
    """

    prompt: str = field(repr=False)
    negative_prompt: str = field(default="", repr=False)
    width: int
    height: int
    steps: int
    sampler: str
    schedule: str
    guidance_scale: float
    seed: int
    count: int = 1
    batch_size: int = 1
    eta: float = math.nan
    noise: str = "torch"
    decoder: str = "vae"
    controls: tuple[Control, ...] = ()
    refiner: str = ""
    refiner_switch: float = 0.8
    upscaler: str = ""
    prompt_syntax: str = "a1111"
    clip_skip: int = 1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    reuse_every: int = 1
    kv_downsampling: int = 1
    vae_tiling: str = "auto"
    strength: float = 0.75
    mask_blur: int = 4
    hires_scale: float = 1.0
    hires_strength: float = 0.7
    hires_steps: int = 0
    hires_upscaler: str = "latent"
    variation_seed: int = 0
    variation_strength: float = 0.0

    def __post_init__(self) -> None:
        """Check every field once, at the border, and resolve what was left out."""
        for name in _WHOLE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise RequestError(
                    f"{name} is of type {type(value).__name__}; it is a whole number"
                )
        if math.isnan(self.eta):
            object.__setattr__(self, "eta", DEFAULT_ETA.get(self.sampler, 0.0))
        for name in ("prompt", "negative_prompt"):
            length = len(getattr(self, name))
            if length > MAX_PROMPT:
                raise RequestError(f"{name} has {length} characters; at most {MAX_PROMPT}")
        # here as well as in the tokenizer: it never sees a negative prompt that has no effect
        check_unicode(self.prompt)
        check_unicode(self.negative_prompt, "negative prompt")
        for name in ("width", "height"):
            side = getattr(self, name)
            if not 8 <= side <= MAX_SIDE or side % 8:
                near = min(max(8, round(side / 8) * 8), MAX_SIDE)
                raise RequestError(
                    f"{name} is {side}; a multiple of 8 from 8 to {MAX_SIDE} is needed",
                    hint=f"{near} is the nearest",
                )
        _between("steps", self.steps, 1, MAX_STEPS)
        _between("count", self.count, 1, MAX_COUNT)
        _between("batch_size", self.batch_size, 1, MAX_BATCH)
        _between("seed", self.seed, 0, MAX_SEED - self.count + 1)
        _between("guidance_scale", self.guidance_scale, 0.0, 100.0)
        _between("eta", self.eta, 0.0, 1.0)
        _between("refiner_switch", self.refiner_switch, 0.0, 1.0)
        _between("the number of controls", len(self.controls), 0, MAX_CONTROLS)
        _between("clip_skip", self.clip_skip, 1, MAX_CLIP_SKIP)
        _between("guidance_start", self.guidance_start, 0.0, 1.0)
        _between("guidance_end", self.guidance_end, 0.0, 1.0)
        _between("reuse_every", self.reuse_every, 1, MAX_REUSE)
        _between("kv_downsampling", self.kv_downsampling, 1, MAX_DOWNSAMPLING)
        if self.guidance_start >= self.guidance_end:
            raise RequestError(
                f"guidance_start is {self.guidance_start}; it must be below guidance_end, which is"
                f" {self.guidance_end}",
                hint="guidance_scale 1 turns guidance off altogether",
            )
        self._check_modes()
        for what, got, allowed in (
            ("sampler", self.sampler, SAMPLERS),
            ("schedule", self.schedule, SCHEDULES),
            ("noise", self.noise, NOISES),
            ("decoder", self.decoder, DECODERS),
            ("VAE tiling", self.vae_tiling, VAE_TILINGS),
            ("hires upscaler", self.hires_upscaler, UPSCALERS),
            ("prompt syntax", self.prompt_syntax, PROMPT_SYNTAXES),
        ):
            if got not in allowed:
                raise unknown_name(what, got, allowed)
        from engine.promptsyntax import parse_prompt  # late: commands that draw nothing load this

        for text, joins in ((self.prompt, True), (self.negative_prompt, False)):
            parse_prompt(text, self.steps, self.prompt_syntax, joins=joins)  # for its limits

    @property
    def final_size(self) -> tuple[int, int]:
        """Give width and height, in pixels, of what comes out of the last pass."""
        width, height = (
            side if self.hires_scale == 1.0 else max(8, round(side * self.hires_scale / 8) * 8)
            for side in (self.width, self.height)
        )
        return width, height

    def of_picture(self, index: int) -> "GenerationRequest":
        """Give the request of picture `index` of `count` alone."""
        if self.variation_strength:
            return replace(self, variation_seed=self.variation_seed + index, count=1)
        return replace(self, seed=self.seed + index, count=1)

    def _check_modes(self) -> None:
        for name in ("strength", "hires_strength", "variation_strength"):
            _between(name, getattr(self, name), 0.0, 1.0)
        _between("mask_blur", self.mask_blur, 0, MAX_BLUR)
        _between("hires_steps", self.hires_steps, 0, MAX_STEPS)
        _between("variation_seed", self.variation_seed, 0, MAX_SEED - self.count + 1)
        _between("hires_scale", self.hires_scale, 1.0, MAX_SCALE)
        if max(self.final_size) > MAX_SIDE:
            width, height = self.final_size
            raise RequestError(
                f"hires_scale is {self.hires_scale}, which makes {width}x{height} pixels;"
                f" at most {MAX_SIDE} a side are allowed"
            )


def check_unicode(text: str, what: str = "prompt") -> None:
    """Refuse text that no encoding can write. Raises RequestError, which does not repeat it."""
    if SURROGATE.search(text):
        raise RequestError(
            f"the {what} holds half of a surrogate pair, which is no character",
            hint="it was damaged on its way here: read or paste it again as UTF-8",
        )


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN fails here as well
        raise RequestError(f"{name} is {value}; from {low} to {high} is allowed")
