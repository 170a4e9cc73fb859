"""`safelight upscale`: a finished picture, enlarged by an upscaler's bundle and sealed."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access
from safelight.canvas import open_picture
from safelight.cli.options import Json, with_access
from safelight.console import line, note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine import Bundle, Choice
    from vault import Draft, Record

__all__ = ["upscale"]


@with_access
def upscale(
    access: Access,
    source: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="A record's id (or first digits), or a file.")
    ],
    model: Annotated[str, typer.Option("--model", help="An upscaler on the shelf.")],
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, openvino, onnxruntime, cuda[:n] ...")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")
    ] = None,
    json: Json = False,
) -> None:
    """Enlarge a picture. The result is sealed in a record that names its parent."""
    from engine import choose
    from engine.upscale import read_scale
    from safelight.settings import load_settings
    from safelight.shelf import Shelf

    settings = load_settings({"device": device, "precision": precision})
    bundle = Shelf(settings.models, settings.cache).open(model)
    read_scale(bundle)  # is it an upscaler at all? Asked before anybody types a passphrase
    with access.open() as vault:
        pixels, parent = open_picture(source, vault)
        choice = choose(settings["device"], settings["precision"], settings.cache)
        note(f"{bundle.name} on {choice.reason}")
        draft = _enlarged(pixels, bundle, choice, parent)
        (record,) = vault.add([draft])
    if json:
        line(_line(record))
    else:
        size = record.metadata["settings"]
        note(f"{record.id[:8]}  {size['width']}x{size['height']}  sealed")


def _enlarged(
    pixels: "NDArray[np.uint8]", bundle: "Bundle", choice: "Choice", parent: "Record | None"
) -> "Draft":
    from engine.upscale import Upscaler
    from safelight.drafts import enlarged_draft
    from safelight.progress import StageProgress

    upscaler = Upscaler(bundle, choice.backend)
    start = time.perf_counter()
    with StageProgress() as bar:
        result = upscaler.upscale(pixels, lambda done: bar.stage("enlarging", done))
    return enlarged_draft(result, bundle, choice, parent, time.perf_counter() - start)


def _line(record: "Record") -> dict[str, Any]:
    fields = record.metadata
    settings = fields["settings"]
    names = ("parent", "model", "backend", "device", "precision", "seconds")
    return {
        "id": record.id,
        **{name: fields[name] for name in names},
        "width": settings["width"],
        "height": settings["height"],
    }
