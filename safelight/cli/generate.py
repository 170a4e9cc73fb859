"""`safelight generate`: prompts become pictures, and pictures become sealed records."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.presets import PRESETS
from engine.request import SAMPLERS, SCHEDULES
from safelight.access import Access
from safelight.cli.options import Json, Model, with_access
from safelight.cli.reveal import write_new
from safelight.cli.trash import expire
from safelight.console import line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import GenerationRequest
    from engine.inputs import Inputs
    from safelight.canvas import Canvas
    from safelight.resume import Line
    from safelight.settings import Settings
    from safelight.studio import Made, Sealed, Studio
    from vault import Vault

__all__ = ["generate"]


@with_access
def generate(
    access: Access,
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to draw; - reads it from standard input, out of shell history."),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="Pictures a prompt.")] = 1,
    model: Model = None,
    negative: Annotated[str | None, typer.Option("--negative", help="What to avoid.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Pixels.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Network steps.")] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help=f"Integrator: {', '.join(SAMPLERS)}.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help=f"Spacing of noise: {', '.join(SCHEDULES)}.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="How strictly to follow; 1 is off.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="First seed; picture k gets seed + k.")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option("--decoder", help="vae, or tiny: quicker, where the bundle has one."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="FILE|ID", help="Begin with this picture, or record's."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="With --init: paint where this picture is white.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option("--strength", help="How much of --init is drawn anew, 0 to 1.")
    ] = None,
    mask_blur: Annotated[
        int | None, typer.Option("--mask-blur", help="Pixels over which the mask's edge fades (4).")
    ] = None,
    hires_scale: Annotated[
        float | None,
        typer.Option("--hires-scale", help="A second pass, this many times as large; 1 is none."),
    ] = None,
    hires_strength: Annotated[
        float | None, typer.Option("--hires-strength", help="How much it draws anew (0.7).")
    ] = None,
    hires_steps: Annotated[
        int | None, typer.Option("--hires-steps", help="Its steps; 0 is those of --steps.")
    ] = None,
    hires_upscaler: Annotated[
        str | None, typer.Option("--hires-upscaler", help="What enlarges for it: latent, lanczos.")
    ] = None,
    variation_seed: Annotated[
        int | None, typer.Option("--variation-seed", help="Seed to turn the noise towards.")
    ] = None,
    variation_strength: Annotated[
        float | None, typer.Option("--variation-strength", help="How far, 0 to 1.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            "--control",
            help="NAME=FILE[,scale=..][,start=..][,end=..]: steer by a ControlNet and a picture;"
            " more than once for several.",
        ),
    ] = None,
    refiner: Annotated[
        str | None, typer.Option("--refiner", help="A bundle of SDXL's refiner, for the end.")
    ] = None,
    refiner_switch: Annotated[
        float | None,
        typer.Option("--refiner-switch", help="Share of the noise behind which it begins (0.8)."),
    ] = None,
    upscaler: Annotated[
        str | None, typer.Option("--upscaler", help="A bundle that enlarges the finished picture.")
    ] = None,
    vae_tiling: Annotated[
        str | None,
        typer.Option("--vae-tiling", help="on, off, or auto: large pictures are decoded in tiles."),
    ] = None,
    clip_skip: Annotated[
        int | None,
        typer.Option(
            "--clip-skip", help="Layer of the text encoder: 1 the usual, 2 the one before."
        ),
    ] = None,
    plain_prompt: Annotated[
        bool, typer.Option("--plain-prompt", help="Brackets, AND and BREAK are only text.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help=f"Speed for likeness: {', '.join(PRESETS)} (the default)."),
    ] = None,
    guidance_start: Annotated[
        float | None,
        typer.Option("--guidance-start", help="Guide from this fraction of the steps on."),
    ] = None,
    guidance_end: Annotated[
        float | None, typer.Option("--guidance-end", help="Guide up to this fraction of the steps.")
    ] = None,
    reuse_every: Annotated[
        int | None,
        typer.Option(
            "--reuse-every",
            help="Compute every N-th evaluation whole and reuse deep features in between: takes a"
            " bundle exported --with shallow.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="auto, cpu, openvino[:GPU], onnxruntime, cuda[:n]..."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="auto, fp32, bf16, fp16 or int8.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="A file: .txt has a prompt a line, .csv a header of request fields, .jsonl a JSON"
            " request a line.",
            allow_dash=True,
        ),
    ] = None,
    prompts_format: Annotated[
        str | None,
        typer.Option("--prompts-format", help="csv, jsonl or txt, whatever the file's suffix."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Of --prompts, make what is sealed already once more.")
    ] = False,
    request: Annotated[
        Path | None,
        typer.Option("--request", help="JSON requests, one object a line.", allow_dash=True),
    ] = None,
    incognito: Annotated[
        bool, typer.Option("--incognito", help="Keep no record; needs --to.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", help="With --incognito: new file, or folder.")
    ] = None,
    json: Json = False,
) -> None:
    r"""Make pictures and seal them. A prompt on the command line stays in your shell's history.

    In prompts (red:1.3) weighs words, \[day:night:0.5] changes half-way,
    \[cat|dog] takes turns, BREAK begins a new chunk of the text encoder,
    and `cat AND dog :0.5` joins two prompts.
    """
    from safelight.addons import read_controls
    from safelight.canvas import open_canvas
    from safelight.settings import load_settings

    if again and prompts is None:
        raise UsageError("--again goes with --prompts")
    if prompts_format is not None and prompts is None:
        raise UsageError("--prompts-format goes with --prompts")
    orders = _orders(prompt, prompts, request, prompts_format)
    if incognito != (to is not None):
        raise UsageError("--incognito and --to go together: no record is kept, the file is all")
    flags = {"model": model, "device": device, "precision": precision}
    chosen = load_settings(flags)
    given = {
        "negative_prompt": negative,
        "width": width,
        "height": height,
        "steps": steps,
        "sampler": sampler,
        "schedule": schedule,
        "guidance_scale": guidance,
        "seed": seed,
        "count": number,
        "decoder": decoder,
        "refiner": refiner,
        "refiner_switch": refiner_switch,
        "upscaler": upscaler,
        "clip_skip": clip_skip,
        "vae_tiling": vae_tiling,
        "prompt_syntax": "plain" if plain_prompt else None,
        "guidance_start": guidance_start,
        "guidance_end": guidance_end,
        "reuse_every": reuse_every,
        "preset": preset,
        "strength": strength,
        "mask_blur": mask_blur,
        "hires_scale": hires_scale,
        "hires_strength": hires_strength,
        "hires_steps": hires_steps,
        "hires_upscaler": hires_upscaler,
        "variation_seed": variation_seed,
        "variation_strength": variation_strength,
    }
    steering = read_controls(control or ())
    given["controls"] = steering.controls
    with nullcontext() if incognito else access.open() as vault:
        drawing = _Drawing(steering.inputs, open_canvas(init, mask, vault))
        sink = _Sink(vault, to, json, prompts is not None, again)
        _run(chosen, orders, given, drawing, sink)
        if vault is not None:
            _look_after(vault)


def _look_after(vault: "Vault") -> None:
    """Apply the retention policy; the pictures are sealed, whatever becomes of it."""
    from vault import VaultError

    try:
        expire(vault)
    except VaultError as error:
        note(f"warning: the retention policy was not applied: {error}")


@dataclass(frozen=True)
class _Drawing:
    """Pictures that go in: those that steer, and what is painted on."""

    inputs: "Inputs"
    canvas: "Canvas | None"


class _Sink:
    """Where the results go: a vault or files, and lines for people or programs."""

    def __init__(
        self, vault: "Vault | None", to: Path | None, json: bool, keep_going: bool, again: bool
    ) -> None:
        self.vault = vault
        self.keep_going = keep_going
        self.again = again
        self._to = to
        self._json = json
        self.finished = self.flagged = 0

    def take(self, event: "Sealed | Made") -> None:
        """Write what has no record, and report what is done."""
        from safelight.studio import Made

        self.finished += 1
        where = "sealed"
        if isinstance(event, Made) and self._to is not None:
            target = self._to
            if target.is_dir():
                target /= f"safelight-{event.line['seed']}.png"
            write_new(target, event.png)
            where = str(target)
        if self._json:
            line(event.line)
        else:
            name = event.line["id"][:8] or "-"
            if event.line["flagged"]:
                where += "; the model's safety checker flagged it, so it is black"
                self.flagged += 1
            note(f"{name}  seed {event.line['seed']}  {where}")


def _orders(
    prompt: str | None, prompts: Path | None, request: Path | None, prompts_format: str | None
) -> list[dict[str, Any]]:
    from safelight.orders import read_bounded, settings_from
    from safelight.promptfile import orders_from

    if [prompt, prompts, request].count(None) != 2:
        raise UsageError("give one of: a prompt, --prompts FILE, --request FILE")
    if prompts is not None:
        return orders_from(prompts, prompts_format)
    if request is not None:
        return settings_from(request)
    text = read_bounded("-", "the prompt").strip() if prompt == "-" else (prompt or "")
    return [{"prompt": text}]


def _run(
    settings: "Settings",
    orders: list[dict[str, Any]],
    given: dict[str, Any],
    drawing: "_Drawing",
    sink: _Sink,
) -> None:
    from engine import Pipeline, choose
    from safelight.addons import open_beside
    from safelight.orders import requests
    from safelight.resume import marks_of
    from safelight.shelf import Shelf
    from safelight.studio import Studio

    shelf = Shelf(settings.models, settings.cache)
    bundle = shelf.open(settings["model"])
    inputs = drawing.inputs
    if drawing.canvas is not None:
        inputs, size = drawing.canvas.fitted(inputs, given, bundle.manifest)
        given = given | size
    parent = "" if drawing.canvas is None else drawing.canvas.parent
    ready = list(requests(bundle, orders, given))
    lines: list[Line] = []
    if sink.keep_going and sink.vault is not None:
        marks = marks_of(orders, given, bundle.hash, inputs)
        ready, lines = _left(ready, marks, sink.vault, again=sink.again)
        if not ready:
            return
    beside = open_beside(shelf, ready)
    choice = choose(settings["device"], settings["precision"], settings.cache)
    note(f"{bundle.name} on {choice.reason}")
    checked = settings["safety_checker"] == "on"
    pipeline = Pipeline(bundle, choice, check_safety=checked, beside=beside)
    _drain(Studio(pipeline, sink.vault, inputs, parent=parent), ready, lines, sink)
    if sink.flagged:
        note('hint: safety_checker = "off" in the configuration (`safelight config`) turns it off')


def _left(
    ready: "list[GenerationRequest]", marks: list[int], vault: "Vault", *, again: bool
) -> "tuple[list[GenerationRequest], list[Line]]":
    """Leave out what is sealed already of the lines of a file, and say so."""
    from safelight.resume import plan, sealed_lines

    planned = list(plan(ready, marks, {} if again else sealed_lines(vault)))
    total, left = (sum(each.count for each in part) for part in (ready, [r for r, _ in planned]))
    if left < total:
        note(f"{total - left} of {total} pictures are sealed already; --again makes them anew")
    return [request for request, _ in planned], [line for _, line in planned]


def _drain(
    studio: "Studio", ready: "Sequence[GenerationRequest]", lines: "Sequence[Line]", sink: _Sink
) -> None:
    from engine import Step
    from safelight.interrupt import Interruption
    from safelight.progress import PictureProgress
    from safelight.studio import Failed

    total = sum(each.count for each in ready)
    failures: list[Exception] = []
    with Interruption() as interrupted, PictureProgress(total) as progress:
        for event in studio.run(ready, interrupted, keep_going=sink.keep_going, lines=lines):
            if isinstance(event, Step):
                progress.step(event)
            elif isinstance(event, Failed):
                failures.append(event.error)
                progress.reach(sum(each.count for each in ready[: event.index + 1]))
                note(f"request {event.index + 1} of {len(ready)} failed: {event.error}")
            else:
                progress.picture()
                sink.take(event)
        if interrupted():
            note(f"stopped: {sink.finished} of {total} pictures are finished and kept")
            raise KeyboardInterrupt
    if failures:
        note(f"{len(failures)} of {len(ready)} requests failed; the first one's reason:")
        raise failures[0]
