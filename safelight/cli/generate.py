"""`safelight generate`: prompts become pictures, and pictures become sealed records."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.presets import PRESETS
from engine.request import SAMPLERS, SCHEDULES
from safelight.access import Access
from safelight.cli.options import Json, Model, with_access
from safelight.cli.trash import expire
from safelight.console import note
from safelight.exits import UsageError

if TYPE_CHECKING:
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
    kv_downsampling: Annotated[
        int | None,
        typer.Option(
            "--kv-downsampling",
            help="2: large self-attentions look at every second row and column alone. Takes a"
            " bundle exported --with thin.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", help="Draw so many at once: quicker, small pictures most of all."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="auto, cpu, openvino[:GPU], onnxruntime, cuda[:n], torch..."),
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

    In prompts (red:1.3) weighs words, [day:night:0.5] changes half-way,
    [cat|dog] takes turns, BREAK begins a new chunk of the text encoder,
    and `cat AND dog :0.5` joins two prompts.
    """
    from safelight.addons import read_controls
    from safelight.canvas import open_canvas
    from safelight.cli.ahead import loading_ahead
    from safelight.cli.making import Drawing, Sink, check_target, make
    from safelight.settings import load_settings

    if again and prompts is None:
        raise UsageError("--again goes with --prompts")
    if prompts_format is not None and prompts is None:
        raise UsageError("--prompts-format goes with --prompts")
    orders = _orders(prompt, prompts, request, prompts_format)
    if incognito != (to is not None):
        raise UsageError("--incognito and --to go together: no record is kept, the file is all")
    if to is not None:
        check_target(to, sum(order.get("count", number) for order in orders))
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
        "batch_size": batch_size,
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
        "kv_downsampling": kv_downsampling,
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
    if not incognito:
        access.summary()  # without a vault nothing needs to be loaded
    plain = not (control or init or mask or prompts)
    with (
        loading_ahead(chosen, orders, given, plain=plain) as ahead,
        nullcontext() if incognito else access.open() as vault,
    ):
        drawing = Drawing(steering.inputs, open_canvas(init, mask, vault))
        sink = Sink(vault, to, json, prompts is not None, again)
        make(chosen, orders, given, drawing, sink, ahead)
        if vault is not None:
            _look_after(vault)


def _look_after(vault: "Vault") -> None:
    """Apply the retention policy; the pictures are sealed, whatever becomes of it."""
    from vault import VaultError

    try:
        expire(vault)
    except VaultError as error:
        note(f"warning: the retention policy was not applied: {error}")


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
