"""From a request to pictures: the one place where text, network, sampler and decoder meet."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.batches import Together, are_alike, why_alone
from engine.beside import NOTHING_BESIDE, Beside, check_beside, names_beside
from engine.decoders import TINY, VAE, Decoder, find_decoder
from engine.devices import Choice
from engine.enlarging import Cancelled, enlarge
from engine.errors import (
    BundleError,
    EngineError,
    NotFiniteError,
    OutOfMemoryError,
    unknown_name,
)
from engine.events import Event, Picture, Step
from engine.guard import DENOISE_REPAIR, finite
from engine.inputs import NO_INPUTS, Inputs
from engine.modes import INPAINT, check_mode, mode_of, passes_of
from engine.painting import paste
from engine.pixels import to_pixels
from engine.purpose import check_draws
from engine.repairs import BATCH_REPAIR, TILES_REPAIR, decode_repaired, room_to_draw
from engine.request import GenerationRequest
from engine.reuse import check_reuse
from engine.safety import COMPONENT as SAFETY_CHECKER
from engine.safety import SafetyChecker
from engine.stages import Stages
from engine.texts import Texts
from engine.thinning import check_thinning
from engine.tiling import decode_size, tile_count
from engine.trajectory import Job, draw_latents, guidance_between_halves
from engine.upscale import Upscaler
from engine.usage import Usage, gauge_for

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.bundle import Bundle
    from engine.conditioning import Shown

__all__ = ["Pipeline"]

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
LATENT_RGB = "latent_rgb"  # previews by the bundle's linear map
PREVIEWS = (LATENT_RGB, TINY)


class Pipeline:
    """Makes pictures with one bundle on one back end.

    bundle: opened and verified. choice: from `engine.choose`, or a Backend. clock: seconds, for
    what events report. check_safety: pictures that the bundle's own safety checker flags come out
    black; without one in the bundle nothing is checked. beside: bundles of ControlNets, refiners
    and upscalers, by the names that requests call them by. It holds loaded networks: keep it for
    the next request. One request at a time; it prints nothing, saves nothing, and knows no policy.
    """

    def __init__(
        self,
        bundle: "Bundle",
        choice: "Choice | Backend",
        *,
        clock: Callable[[], float] = time.perf_counter,
        check_safety: bool = True,
        beside: Beside = NOTHING_BESIDE,
    ) -> None:
        """Read the tokenizer. Raises BundleError, also for a bundle that draws nothing from text
        alone; networks are loaded by `load` or a request.
        """
        check_draws(bundle.manifest)
        chosen = choice if isinstance(choice, Choice) else Choice(backend=choice, reason="given")
        self._bundle = bundle
        self._backend = chosen.backend
        self._reason = chosen.reason
        self._clock = clock
        self._tokenizers = bundle.tokenizers()
        self._beside = beside
        self._gauge = gauge_for(chosen.backend)
        self._next = Usage(self._gauge, clock)  # of the next picture: it may be loaded for already
        self._upscalers: dict[str, Upscaler] = {}
        self._stock = Stages(bundle, chosen.backend, self._tokenizers, beside)
        self._repair: Stages | None = None
        has_checker = check_safety and SAFETY_CHECKER in bundle.manifest.components
        self._checker = SafetyChecker(bundle) if has_checker else None

    @property
    def model(self) -> str:
        """Name the bundle."""
        return self._bundle.name

    @property
    def device(self) -> str:
        """Name the device that computes."""
        return self._backend.device

    def load(self, width: int, height: int, *, guided: bool = True) -> float:
        """Load the networks for pictures of this size in pixels; gives the seconds it took.

        guided: for a guidance_scale other than 1; of no matter to a network that embeds it.
        Loading what is loaded takes no time.
        """
        halves = 1 + (guided and not self._bundle.manifest.guidance_dim)
        tokens = self._bundle.manifest.token_limit
        network = partial(self._stock.load_plain, halves, tokens, height, width)
        start = self._clock()
        self._load(network, (height, width), self._decoder(VAE))
        return self._clock() - start

    def generate(
        self,
        request: GenerationRequest,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        inputs: Inputs = NO_INPUTS,
        previews: str = LATENT_RGB,
    ) -> Iterator[Event]:
        """Yield a Step after every evaluation of the network, and a Picture at each one's end.

        Each picture of `count` has its own seed, and is made alone unless `batch_size` says how
        many are made at once; of want of memory for so many, half as many are tried, and the
        picture says so. cancelled is asked between evaluations and tiles: when it says yes, the
        events end; pictures that were yielded stay good. A picture that overflowed is made once
        more in fp32, and its steps are reported once more; one that the memory does not hold while
        it is decoded is decoded in tiles. previews: `latent_rgb`, a coarse and free one, or `tiny`,
        by the bundle's tiny decoder. Raises RequestError at once; BundleError, DeviceError
        (OutOfMemoryError with a smaller size) and NotFiniteError while events are taken.
        """
        return self.generate_together([request], cancelled, inputs=inputs, previews=previews)

    def generate_together(
        self,
        requests: Sequence[GenerationRequest],
        cancelled: Callable[[], bool] = lambda: False,
        *,
        inputs: Inputs = NO_INPUTS,
        previews: str = LATENT_RGB,
    ) -> Iterator[Event]:
        """Draw requests that `together` counted as `generate` does one, in their order. Pictures,
        and what `Step.picture` is, are counted through all of them.
        """
        firsts = accumulate((request.count for request in requests), initial=0)
        jobs = [
            self._jobs(request, cancelled, inputs, previews, first)
            for request, first in zip(requests, firsts, strict=False)
        ]
        return self._run(chain.from_iterable(jobs), requests[0].batch_size)

    def together(self, requests: Sequence[GenerationRequest], *, inputs: Inputs = NO_INPUTS) -> int:
        """Count how many of the first requests are drawn at once, 1 or more: alike but for texts
        and seeds, and no more pictures than the first one's `batch_size`. Who cannot be drawn at
        all is left to be refused by itself.
        """
        first, *others = requests
        pictures = first.count
        if not others or pictures >= first.batch_size or why_alone(first):
            return 1
        many = 1
        with suppress(EngineError):
            texts = self._planned(first, inputs)
            for request in others:
                pictures += request.count
                if pictures > first.batch_size or not are_alike(first, request):
                    break
                if not texts.go_with(self._planned(request, inputs)):
                    break
                many += 1
        return many

    def _planned(self, request: GenerationRequest, inputs: Inputs) -> Texts:
        """Check a request, and give its texts."""
        return next(self._jobs(request, lambda: False, inputs, LATENT_RGB)).texts

    def prepare(self, request: GenerationRequest) -> float:
        """Load all that a request takes into which no pictures go; gives the seconds it took, which
        the next picture's own `load` counts, as its peak of memory does. Before `generate`, in any
        thread; raises as that does.
        """
        job = next(self._jobs(request, lambda: False, NO_INPUTS, LATENT_RGB))
        at_once = 1 if self._goes_alone(job) else min(request.batch_size, request.count)
        fewer_may_fit = suppress(OutOfMemoryError, MemoryError) if at_once > 1 else nullcontext()
        before = self._next.seconds.load
        with self._next.stage("load"), fewer_may_fit:
            self._load_for(job, at_once)
        return self._next.seconds.load - before

    def _jobs(
        self,
        request: GenerationRequest,
        cancelled: Callable[[], bool],
        inputs: Inputs,
        previews: str,
        first: int = 0,
    ) -> Iterator[Job]:
        """Check a request, and give a job for each of its pictures, which are counted from `first`
        on.
        """
        if previews not in PREVIEWS:
            raise unknown_name("preview", previews, PREVIEWS)
        check_thinning(request, self._bundle.manifest, self._backend.precision)
        check_reuse(request, self._bundle.manifest, self._backend.precision)
        decoder = self._decoder(request.decoder)
        preview_decoder = self._decoder(TINY) if previews == TINY else None
        check_mode(request, inputs, self._bundle.manifest)
        passes = passes_of(request, inputs, self._bundle.training)
        check_beside(request, inputs, self._bundle, self._beside)
        self._check_precision(request)
        steps = int(passes[0].table.steps[-1]) + 1
        texts = self._plan(request, steps, self._stock)
        refiner_texts: tuple[Texts, ...] = ()
        if request.refiner:
            refiner = self._stock.refiner(request.refiner)
            refiner_texts = (self._plan(request, steps, refiner),)
        return (
            Job(
                request=request.of_picture(index),
                inputs=inputs,
                index=first + index,
                passes=passes,
                texts=texts,
                refiner_texts=refiner_texts,
                cancelled=cancelled,
                decoder=decoder,
                preview_decoder=preview_decoder,
                clock=self._clock,
                look=self._gauge.look,
            )
            for index in range(request.count)
        )

    def _run(self, jobs: Iterator[Job], size: int) -> Iterator[Event]:
        """Make all pictures, `size` at once where that can be."""
        waiting: list[Job] = []
        repairs: tuple[str, ...] = ()
        while True:
            waiting += islice(jobs, max(0, size - len(waiting)))
            if not waiting or waiting[0].cancelled():
                return
            if self._goes_alone(waiting[0]):
                size = 1
            batch = waiting[:size]
            usage, self._next = self._next, Usage(self._gauge, self._clock)
            with room_to_draw(batch[0].request):
                try:
                    drawn = yield from self._drawn(batch, usage)
                except (OutOfMemoryError, MemoryError):
                    if len(batch) == 1:
                        raise
                    self._stock.components.give_back_unet()
                    size, repairs = (len(batch) + 1) // 2, (BATCH_REPAIR,)
                    continue
                if drawn is None or not (yield from self._finished(batch, drawn, usage, repairs)):
                    return
            del waiting[: len(batch)]

    def _goes_alone(self, job: Job) -> bool:
        """Say whether something is in the way of drawing several pictures at once."""
        if job.request.batch_size == 1 or why_alone(job.request):
            return True
        return not self._stock.row_by_row(job.request, job.texts, job.inputs, job.passes)

    def _drawn(self, jobs: Sequence[Job], usage: Usage) -> Generator[Step, None, "_Drawn | None"]:
        """Draw the latents of pictures made at once; None when it was cancelled."""
        with usage.stage("load"):
            row_by_row = self._load_for(jobs[0], len(jobs))
        with usage.stage("text"):
            texts = _embedded(jobs, self._stock)
        with usage.stage("denoise"):
            manifest, stock = self._bundle.manifest, self._stock
            latents = yield from draw_latents(jobs, manifest, stock, texts, stock)
        return None if latents is None else _Drawn(latents, row_by_row)

    def _finished(
        self, jobs: Sequence[Job], drawn: "_Drawn", usage: Usage, repairs: tuple[str, ...]
    ) -> Generator[Event, None, bool]:
        """Decode latents one after the other into pictures; says whether all were."""
        for place, job in enumerate(jobs):
            own = usage.shared(len(jobs))
            latents: Float32 | None = drawn.latents[place : place + 1]
            redone: tuple[str, ...] = ()
            if not finite(drawn.latents[place]):
                with own.stage("denoise"):
                    latents, redone = yield from self._redrawn(job)
            if latents is None or job.cancelled():
                return False
            try:
                with own.stage("decode"):
                    pixels, flagged, repaired = self._decoded(job, latents)
            except Cancelled:
                return False
            picture = self._describe(job, pixels, own, (*repairs, *job.repairs, *redone, *repaired))
            alone = why_alone(job.request) if job.request.batch_size > 1 else ""
            yield replace(
                picture,
                request=replace(picture.request, batch_size=len(jobs)),
                flagged=flagged,
                reason=picture.reason
                + self._stock.how(drawn.row_by_row)
                + (f"; one picture at a time: {alone}" if alone else ""),
            )
        return True

    def _redrawn(self, job: Job) -> Generator[Step, None, tuple[Float32 | None, tuple[str, ...]]]:
        """Give one picture's latents f32[1, 4, h, w], drawn once more in fp32, or None when that
        was cancelled; and what was repaired.
        """
        exact = self._exact("latents")
        texts = _embedded([job], exact)
        again = yield from draw_latents([job], self._bundle.manifest, exact, texts, self._stock)
        if again is not None and not finite(again):
            raise _not_finite("latents")
        return again, (DENOISE_REPAIR,)

    def _decoded(self, job: Job, latents: Float32) -> tuple[UInt8, bool, tuple[str, ...]]:
        """Give the finished pixels, whether they were flagged, and what was repaired. Raises
        Cancelled.
        """
        request = job.request
        decoded, repairs = decode_repaired(
            job.decoder,
            latents,
            self._stock,
            lambda: self._exact("picture"),
            tiled=job.is_tiled,
            progress=job.stop_if_cancelled,
        )
        if not finite(decoded):
            raise _not_finite("picture")
        pixels = to_pixels(decoded)
        if mode_of(job.inputs) == INPAINT:
            pixels = paste(pixels, job.inputs.init, job.inputs.mask, request.mask_blur)
        flagged = self._is_flagged(pixels)
        pixels = np.zeros_like(pixels) if flagged else pixels
        if request.upscaler:
            pixels = self._enlarge(pixels, job, black=flagged)
        return pixels, flagged, repairs

    def _load_for(self, job: Job, pictures: int = 1) -> str:
        """Load what so many pictures at once take; gives why the host runs the loop, if it does."""
        request = job.request
        size = (request.height, request.width)
        halves, tokens = job.texts.halves, job.texts.tokens
        network: Callable[[], object] = partial(
            self._stock.load, request, halves, tokens, *size, pictures
        )
        row_by_row = self._stock.row_by_row(request, job.texts, job.inputs, job.passes)
        if not row_by_row:
            network = partial(self._stock.steps, job.passes[0], halves, tokens)
        width, height = request.final_size
        self._load(network, (height, width), job.decoder, request.vae_tiling)
        self._load_refiner(job)
        return row_by_row

    def _load(
        self,
        network: Callable[[], object],
        size: tuple[int, int],
        decoder: Decoder,
        tiling: str = "auto",
    ) -> None:
        """Load what a picture takes; network: loads what predicts. size: height and width of what
        is decoded.
        """
        components = self._stock.components
        components.text_encoders()
        network()
        with suppress(OutOfMemoryError):  # it is asked for again when there is something to decode
            components.decoder(decoder.component, *decode_size(tiling, size[1], size[0]))
        if self._checker is not None:
            self._fp32().components.safety_checker(self._checker.side)

    def _load_refiner(self, job: Job) -> None:
        request = job.request
        if not request.refiner:
            self._stock.drop_refiner()
            return
        refiner = self._stock.refiner(request.refiner)
        refiner.components.text_encoders()
        for texts in job.refiner_texts:
            refiner.load(request, texts.halves, texts.tokens, request.height, request.width)

    def _enlarge(self, pixels: UInt8, job: Job, *, black: bool) -> UInt8:
        name = job.request.upscaler
        if name not in self._upscalers:
            self._upscalers = {name: Upscaler(self._beside[name], self._backend)}
        upscaler = self._upscalers[name]
        if black:  # which a network may make something of
            height, width, _ = pixels.shape
            return np.zeros((upscaler.scale * height, upscaler.scale * width, 3), np.uint8)
        return enlarge(pixels, upscaler, job.cancelled)

    def _plan(self, request: GenerationRequest, steps: int, stages: Stages) -> Texts:
        guided = guidance_between_halves(request, stages.bundle.manifest) != 1.0
        return stages.conditioner.plan(request, steps, guided=guided)

    def _check_precision(self, request: GenerationRequest) -> None:
        if self._backend.precision == "int8" and (request.controls or request.refiner):
            raise BundleError(
                "int8 has a form of a model's own unet alone: of none that ControlNets steer, and"
                " of no refiner",
                hint="leave out --precision int8, or the ControlNet and the refiner",
            )

    def _decoder(self, name: str) -> Decoder:
        return find_decoder(name, self._bundle.manifest, self._bundle.path)

    def _is_flagged(self, pixels: NDArray[np.uint8]) -> bool:
        if self._checker is None:
            return False
        # In fp32: the decision is about the third decimal of a cosine, which bf16 does not have.
        session = self._fp32().components.safety_checker(self._checker.side)
        return self._checker.flags(pixels, session)

    def _exact(self, what: str) -> Stages:
        """Give the stages in fp32. Raises NotFiniteError when that is what has just failed."""
        if self._backend.precision == "fp32":
            raise _not_finite(what)
        return self._fp32()

    def _fp32(self) -> Stages:
        if self._backend.precision == "fp32":
            return self._stock
        if self._repair is None:
            self._repair = Stages(
                self._bundle, self._backend.exact(), self._tokenizers, self._beside
            )
        return self._repair

    def _describe(self, job: Job, pixels: UInt8, usage: Usage, repairs: tuple[str, ...]) -> Picture:
        return Picture(
            pixels=pixels,
            request=job.request,
            model=self._bundle.name,
            model_hash=self._bundle.hash,
            backend=self._backend.name,
            device=self._backend.device,
            precision=self._backend.precision,
            reason=self._reason,
            seconds=usage.seconds,
            peak_memory=usage.peak_memory,
            repairs=repairs,
            libraries=(*self._backend.libraries, ("numpy", np.__version__)),
            tiles=tile_count(
                "on" if TILES_REPAIR in repairs else job.request.vae_tiling,
                *job.request.final_size,
            ),
            beside=tuple((name, self._beside[name].hash) for name in names_beside(job.request)),
        )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """latents: f32[p, 4, h, w] of the pictures drawn at once. row_by_row: why the host ran the
    loop, if it did.
    """

    latents: Float32
    row_by_row: str


def _embedded(jobs: Sequence[Job], stages: Stages) -> "list[Shown]":
    """Encode the texts of pictures that are drawn at once, for the bundle, and for its refiner
    where the request names one.
    """
    job = jobs[0]
    if len(jobs) > 1:
        known = {id(each.texts): each.texts for each in jobs}  # pictures of one request share them
        embedded = {key: stages.embed(texts) for key, texts in known.items()}
        return [Together([embedded[id(each.texts)] for each in jobs])]
    refined = [stages.refiner(job.request.refiner).embed(each) for each in job.refiner_texts]
    return [stages.embed(job.texts), *refined]


def _not_finite(what: str) -> NotFiniteError:
    return NotFiniteError(
        f"the {what} came out as NaN or Inf, in fp32 as well",
        hint="the model may be damaged: safelight models verify; or guidance is too high",
    )
