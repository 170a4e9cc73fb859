"""From noise to latents: the passes that make pictures, each a run of the loop."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.batches import joined
from engine.beginning import Beginning, begin
from engine.conditioning import Shown
from engine.courses import Course, Rows, Steps, noised
from engine.decoders import Decoder
from engine.denoiser import Denoiser
from engine.enlarging import Cancelled
from engine.events import Step
from engine.inputs import Inputs
from engine.loop import Denoise
from engine.manifest import Manifest
from engine.modes import Pass
from engine.network import Canvas
from engine.pixels import preview, to_pixels
from engine.refiner import Handover, switch_step
from engine.request import GenerationRequest
from engine.stages import Stages
from engine.stepgraph import mixed, program_of
from engine.texts import Texts
from engine.tiling import is_tiled

__all__ = ["Job", "draw_latents", "guidance_between_halves"]

Float32 = NDArray[np.float32]
_EMPTY = np.zeros((0, 0, 0, 0), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One picture to make: its own request, its place among those that are asked for with it, and
    what they share.

    refiner_texts: the same texts for its refiner, none without. preview_decoder: None makes
    previews by the bundle's linear map. clock: seconds. look: called between evaluations, outside
    of what a Step's seconds are. repairs: what had to be done in another way while passes began,
    once each; filled meanwhile.
    """

    request: GenerationRequest
    inputs: Inputs
    index: int
    passes: tuple[Pass, ...]
    texts: Texts
    refiner_texts: tuple[Texts, ...]
    cancelled: Callable[[], bool]
    decoder: Decoder
    preview_decoder: Decoder | None
    clock: Callable[[], float] = time.perf_counter
    look: Callable[[], None] = lambda: None
    repairs: list[str] = field(default_factory=list[str])

    @property
    def is_tiled(self) -> bool:
        """Say whether the picture is decoded in tiles."""
        return is_tiled(self.request.vae_tiling, *self.request.final_size)

    def repaired(self, how: str) -> None:
        """Keep what was repaired: pictures may be begun more than once."""
        if how not in self.repairs:
            self.repairs.append(how)

    def stop_if_cancelled(self, _fraction: float = 0.0) -> None:
        """Raise Cancelled where that was asked: the `progress` of work without steps."""
        if self.cancelled():
            raise Cancelled


def guidance_between_halves(request: GenerationRequest, manifest: Manifest) -> float:
    """Give the scale between two halves; a network that takes it as an input has but one."""
    return 1.0 if manifest.guidance_dim else request.guidance_scale


def draw_latents(
    jobs: Sequence[Job],
    manifest: Manifest,
    stages: Stages,
    texts: Sequence[Shown],
    stock: Stages,
) -> Generator[Step, None, Float32 | None]:
    """Run the passes of pictures that are drawn at once, a Step for each of them after each
    evaluation; gives the latents f32[p, 4, h, w] to decode, or None when it was cancelled.

    stages: of the precision that computes. texts: for the bundle, and for its refiner where the
    request names one. stock: the stages that previews are decoded by.
    """
    job = jobs[0]
    latents = _EMPTY
    total = sum(len(each.table.sigmas) for each in job.passes)
    done = 0
    for this in job.passes:
        try:
            begun = joined(
                [
                    begin(each, this, stages, latents[place : place + 1])
                    for place, each in enumerate(jobs)
                ]
            )
        except Cancelled:
            return None
        course = _course(job, this, begun, stages, texts)
        for _ in this.table.sigmas:
            if job.cancelled():
                return None
            began = job.clock()
            course.advance()
            seconds = (job.clock() - began) / len(jobs)
            for place, each in enumerate(jobs):
                yield Step(
                    picture=each.index,
                    index=done,
                    count=total,
                    seconds=seconds,
                    preview=_preview(course, place, each, manifest, stock),
                )
            job.look()
            done += 1
        latents = course.latents()
    return latents


def _course(
    job: Job, this: Pass, begun: Beginning, stages: Stages, texts: Sequence[Shown]
) -> Course:
    """Begin a pass, in whole steps on the device where its back end has a graph for them."""
    request, manifest = job.request, stages.bundle.manifest
    if stages.row_by_row(request, job.texts, job.inputs, job.passes):
        return Rows(this.table, begun, _denoiser(job, this, begun, stages, texts))
    start, pieces = noised(this.table, begun)
    scale = guidance_between_halves(request, manifest)
    program = program_of(
        this.table,
        manifest.prediction_type,
        start,
        pieces,
        mixed(scale, job.texts.weights if job.texts.halves > 1 else ()),
        stages.conditions(texts[0], request, this),
    )
    return Steps(stages.steps(this, job.texts.halves, job.texts.tokens), program)


def _denoiser(
    job: Job, this: Pass, begun: Beginning, stages: Stages, texts: Sequence[Shown]
) -> Denoise:
    """Bind the networks that take part to their texts: the bundle's, and then its refiner's."""
    canvas = Canvas(this.width, this.height, begun.beside)
    base = _bound(job, canvas, stages, texts[0], job.texts.weights)
    request = job.request
    if not request.refiner:
        return base
    refiner = stages.refiner(request.refiner)
    refined = _bound(job, canvas, refiner, texts[1], job.refiner_texts[0].weights)
    trained = stages.bundle.training.num_train_timesteps
    return Handover(base, refined, switch_step(this.table, trained, request.refiner_switch))


def _bound(
    job: Job, canvas: Canvas, stages: Stages, text: Shown, weights: Sequence[float]
) -> Denoiser:
    request, manifest = job.request, stages.bundle.manifest
    return Denoiser(
        stages.network(text, request, canvas, job.inputs, weights),
        manifest.prediction_type,
        guidance_between_halves(request, manifest),
        weights,
    )


def _preview(
    course: Course, place: int, job: Job, manifest: Manifest, stock: Stages
) -> Callable[[], NDArray[np.uint8]]:
    """Give what looks at the picture at a place among those that are drawn at once."""
    decoder = job.preview_decoder
    if decoder is None:
        return lambda: preview(course.denoised()[place : place + 1], manifest.latent_rgb)

    def look() -> NDArray[np.uint8]:
        denoised = course.denoised()[place : place + 1]
        latents = np.nan_to_num(denoised, posinf=0.0, neginf=0.0)
        decoded = stock.decode(decoder, latents, tiled=job.is_tiled)
        return to_pixels(np.nan_to_num(decoded, nan=-1.0))

    return look
