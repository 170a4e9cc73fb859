"""From noise to latents: the passes that make one picture, each a run of the loop."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditioning, ScheduledConditioning
from engine.decoders import Decoder
from engine.denoiser import Denoiser
from engine.events import Step
from engine.inputs import Inputs
from engine.loop import Denoise, integrate
from engine.manifest import Manifest
from engine.noise import noise_source
from engine.pixels import preview, to_pixels
from engine.refiner import Handover, switch_step
from engine.request import GenerationRequest
from engine.samplers import Table
from engine.stages import Stages
from engine.texts import Texts

__all__ = ["Embedded", "Job", "draw_latents", "guidance_between_halves"]

Float32 = NDArray[np.float32]
Embedded = Conditioning | ScheduledConditioning


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One picture to make: its own request, its place among `count`, and what they share.

    refiner_texts: the same texts for its refiner, none without. preview_decoder: None makes
    previews by the bundle's linear map. clock: seconds.
    """

    request: GenerationRequest
    inputs: Inputs
    index: int
    table: Table
    texts: Texts
    refiner_texts: tuple[Texts, ...]
    cancelled: Callable[[], bool]
    decoder: Decoder
    preview_decoder: Decoder | None
    clock: Callable[[], float] = time.perf_counter


def guidance_between_halves(request: GenerationRequest, manifest: Manifest) -> float:
    """Give the scale between two halves; a network that takes it as an input has but one."""
    return 1.0 if manifest.guidance_dim else request.guidance_scale


def draw_latents(
    job: Job, manifest: Manifest, stages: Stages, texts: Sequence[Embedded], stock: Stages
) -> Generator[Step, None, Float32 | None]:
    """Run the job's passes, a Step after each evaluation; gives the latents f32[1, 4, h, w] to
    decode, or None when it was cancelled.

    stages: of the precision that computes. texts: for the bundle, and for its refiner where the
    request names one. stock: the stages that previews are decoded by.
    """
    request, table = job.request, job.table
    denoiser = _denoiser(job, stages, texts)
    start = np.zeros(stages.components.latent_shape(request.height, request.width), np.float32)
    noise = noise_source(request.noise, request.seed)
    latents = start
    rows = integrate(table, noise, start, denoiser)
    for index in range(len(table.sigmas)):
        if job.cancelled():
            return None
        began = job.clock()
        with np.errstate(over="ignore", invalid="ignore"):  # the guard looks at the result
            _, latents, denoised = next(rows)
        yield Step(
            picture=job.index,
            index=index,
            count=len(table.sigmas),
            seconds=job.clock() - began,
            preview=_preview(denoised, job, manifest, stock),
        )
    return latents.copy()


def _denoiser(job: Job, stages: Stages, texts: Sequence[Embedded]) -> Denoise:
    """Bind the networks that take part to their texts: the bundle's, and then its refiner's."""
    base = _bound(job, stages, texts[0], job.texts.weights)
    request = job.request
    if not request.refiner:
        return base
    refiner = stages.refiner(request.refiner)
    refined = _bound(job, refiner, texts[1], job.refiner_texts[0].weights)
    trained = stages.bundle.training.num_train_timesteps
    return Handover(base, refined, switch_step(job.table, trained, request.refiner_switch))


def _bound(job: Job, stages: Stages, text: Embedded, weights: Sequence[float]) -> Denoiser:
    request, manifest = job.request, stages.bundle.manifest
    return Denoiser(
        stages.network(text, request, request.width, request.height, job.inputs, weights),
        manifest.prediction_type,
        guidance_between_halves(request, manifest),
        weights,
    )


def _preview(
    denoised: Float32, job: Job, manifest: Manifest, stock: Stages
) -> Callable[[], NDArray[np.uint8]]:
    decoder = job.preview_decoder
    if decoder is None:
        return lambda: preview(denoised, manifest.latent_rgb)

    def look() -> NDArray[np.uint8]:
        latents = np.nan_to_num(denoised, posinf=0.0, neginf=0.0)
        return to_pixels(np.nan_to_num(stock.decode(decoder, latents), nan=-1.0))

    return look
