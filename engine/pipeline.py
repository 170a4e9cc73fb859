"""From a request to pictures: the one place where text, network, sampler and decoder meet."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session
from engine.components import Components
from engine.conditioning import Conditioner, Conditioning
from engine.denoiser import Denoiser
from engine.devices import Choice
from engine.errors import BundleError, NotFiniteError
from engine.events import Event, Picture, Seconds, Step
from engine.guard import DECODE_REPAIR, DENOISE_REPAIR, finite
from engine.loop import integrate
from engine.noise import noise_source
from engine.pixels import preview, to_pixels
from engine.request import GenerationRequest
from engine.samplers import Table, tabulate

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.bundle import Bundle

__all__ = ["Pipeline"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One picture to make: its own request, its place among `count`, and what they share."""

    request: GenerationRequest
    index: int
    table: Table
    token_ids: list[NDArray[np.int64]]
    cancelled: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Stages:
    """Networks of one precision together with what they made of the prompt."""

    components: Components
    conditioner: Conditioner


class Pipeline:
    """Makes pictures with one bundle on one back end.

    bundle: opened and verified. choice: from `engine.choose`, or a Backend. clock: seconds, for
    what events report. It holds loaded networks: keep it for the next request. One request at a
    time; it prints nothing, saves nothing, and knows no policy.
    """

    def __init__(
        self,
        bundle: "Bundle",
        choice: "Choice | Backend",
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Read the tokenizer. Raises BundleError; networks are loaded by `load` or a request."""
        chosen = choice if isinstance(choice, Choice) else Choice(backend=choice, reason="given")
        if bundle.manifest.add_on:
            raise BundleError(
                f"'{bundle.name}' is of family {bundle.manifest.family}: it draws no picture alone",
                hint="it goes with a Stable Diffusion model: `safelight models ls` names those",
            )
        self._bundle = bundle
        self._backend = chosen.backend
        self._reason = chosen.reason
        self._clock = clock
        self._tokenizers = bundle.tokenizers()
        self._stock = self._stages(chosen.backend)
        self._repair: _Stages | None = None

    @property
    def model(self) -> str:
        """Name the bundle."""
        return self._bundle.name

    def load(self, width: int, height: int, *, guided: bool = True) -> float:
        """Load the networks for pictures of this size in pixels; gives the seconds it took.

        guided: for a guidance_scale other than 1. Loading what is loaded takes no time.
        """
        return self._load(1 + guided, self._bundle.manifest.token_limit, height, width)

    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Event]:
        """Yield a Step after every evaluation of the network, and a Picture at each one's end.

        Each picture of `count` is made alone with its own seed, so the others do not change it.
        cancelled is asked between evaluations: when it says yes, the events end; pictures that
        were yielded stay good. A picture that overflowed is made once more in fp32, and its steps
        are reported once more. Raises RequestError at once; BundleError, DeviceError and
        NotFiniteError while events are taken.
        """
        table = tabulate(
            request.sampler,
            self._bundle.training,
            request.schedule,
            request.steps,
            request.eta,
        )
        texts = (request.negative_prompt, request.prompt)
        token_ids = self._stock.conditioner.tokens(texts[request.guidance_scale == 1.0 :])
        jobs = (
            _Job(
                request=replace(request, seed=request.seed + index, count=1),
                index=index,
                table=table,
                token_ids=token_ids,
                cancelled=cancelled,
            )
            for index in range(request.count)
        )
        return self._run(jobs)

    def _run(self, jobs: Iterator[_Job]) -> Iterator[Event]:
        for job in jobs:
            picture = yield from self._picture(job)
            if picture is None:  # cancelled
                return
            yield picture

    def _picture(self, job: _Job) -> Generator[Step, None, Picture | None]:
        """Make one picture; None when it was cancelled."""
        if job.cancelled():
            return None
        request = job.request
        tokens = job.token_ids[0][0].size
        load = self._load(len(job.token_ids), tokens, request.height, request.width)
        repairs: tuple[str, ...] = ()
        start = self._clock()
        conditioning = self._embed(self._stock, job)
        text = self._clock() - start
        start = self._clock()
        latents = yield from self._denoise(job, self._stock, conditioning)
        if latents is not None and not finite(latents):
            repairs = (DENOISE_REPAIR,)
            exact = self._exact("latents")
            latents = yield from self._denoise(job, exact, self._embed(exact, job))
            if latents is not None and not finite(latents):
                raise _not_finite("latents")
        denoise = self._clock() - start
        if latents is None or job.cancelled():
            return None
        start = self._clock()
        decoded = self._decode(request, self._stock, latents)
        if not finite(decoded):
            repairs = (*repairs, DECODE_REPAIR)
            decoded = self._decode(request, self._exact("picture"), latents)
            if not finite(decoded):
                raise _not_finite("picture")
        pixels = to_pixels(decoded)
        decode = self._clock() - start
        seconds = Seconds(load=load, text=text, denoise=denoise, decode=decode)
        return self._describe(job, pixels, seconds, repairs)

    def _load(self, halves: int, tokens: int, height: int, width: int) -> float:
        start = self._clock()
        components = self._stock.components
        components.text_encoders()
        components.unet(halves, tokens, height, width)
        components.vae_decoder(height, width)
        return self._clock() - start

    def _embed(self, stages: _Stages, job: _Job) -> Conditioning:
        return stages.conditioner.embed(job.token_ids, stages.components.text_encoders())

    def _denoise(
        self, job: _Job, stages: _Stages, text: Conditioning
    ) -> Generator[Step, None, Float32 | None]:
        """Run the table; gives the latents f32[1, 4, h, w], or None when it was cancelled."""
        request, table = job.request, job.table
        halves, tokens, _ = text.embeds.shape
        unet = stages.components.unet(halves, tokens, request.height, request.width)
        denoiser = Denoiser(
            _predictor(unet, text, request),
            self._bundle.manifest.prediction_type,
            request.guidance_scale,
        )
        shape = stages.components.latent_shape(request.height, request.width)
        noise = noise_source(request.noise, request.seed)
        latents = np.zeros(shape, dtype=np.float32)
        rows = integrate(table, noise, shape, denoiser)
        for index in range(len(table.sigmas)):
            if job.cancelled():
                return None
            start = self._clock()
            with np.errstate(over="ignore", invalid="ignore"):  # the guard looks at the result
                _, latents, denoised = next(rows)
            yield Step(
                picture=job.index,
                index=index,
                count=len(table.sigmas),
                seconds=self._clock() - start,
                preview=self._preview(denoised),
            )
        return latents.copy()

    def _decode(self, request: GenerationRequest, stages: _Stages, latents: Float32) -> Float32:
        decoder = stages.components.vae_decoder(request.height, request.width)
        scaled = latents / np.float32(self._bundle.manifest.scaling_factor)
        decoded = decoder.run({"latent_sample": scaled})
        if decoded.shape != (1, 3, request.height, request.width):
            raise BundleError(
                f"the decoder gives {decoded.shape}; (1, 3, {request.height}, {request.width}) "
                "was expected"
            )
        return decoded

    def _preview(self, denoised: Float32) -> Callable[[], NDArray[np.uint8]]:
        return lambda: preview(denoised, self._bundle.manifest.latent_rgb)

    def _exact(self, what: str) -> _Stages:
        """Give the stages in fp32. Raises NotFiniteError when that is what has just failed."""
        if self._backend.precision == "fp32":
            raise _not_finite(what)
        if self._repair is None:
            self._repair = self._stages(self._backend.exact())
        return self._repair

    def _stages(self, backend: "Backend") -> _Stages:
        manifest = self._bundle.manifest
        conditioner = Conditioner(
            self._tokenizers, manifest.embed_dim, zero_empty=manifest.family == "sdxl"
        )
        return _Stages(Components(self._bundle, backend), conditioner)

    def _describe(
        self, job: _Job, pixels: NDArray[np.uint8], seconds: Seconds, repairs: tuple[str, ...]
    ) -> Picture:
        return Picture(
            pixels=pixels,
            request=job.request,
            model=self._bundle.name,
            model_hash=self._bundle.hash,
            backend=self._backend.name,
            device=self._backend.device,
            precision=self._backend.precision,
            reason=self._reason,
            seconds=seconds,
            repairs=repairs,
            libraries=(*self._backend.libraries, ("numpy", np.__version__)),
        )


def _predictor(
    unet: Session, text: Conditioning, request: GenerationRequest
) -> Callable[[Float32, float], Float32]:
    """Bind the prompt to the network: (x2 f32[halves, 4, h, w], timestep) -> the same shape."""
    inputs: dict[str, Array] = {"encoder_hidden_states": text.embeds}
    if text.pooled is not None:
        # Size before cropping, the crop's top and left, size now: made as if nothing was cropped.
        sizes = (request.height, request.width, 0, 0, request.height, request.width)
        time_ids = np.array([sizes] * len(text.pooled), dtype=np.float32)
        inputs |= {"text_embeds": text.pooled, "time_ids": time_ids}

    def predict(x2: Float32, timestep: float) -> Float32:
        inputs["sample"] = x2
        inputs["timestep"] = np.array(timestep, dtype=np.float32)
        output = unet.run(inputs)
        if output.shape != x2.shape:
            raise BundleError(f"the unet gives {output.shape} for {x2.shape}")
        return output

    return predict


def _not_finite(what: str) -> NotFiniteError:
    return NotFiniteError(
        f"the {what} came out as NaN or Inf, in fp32 as well",
        hint="the model may be damaged: safelight models verify; or guidance is too high",
    )
