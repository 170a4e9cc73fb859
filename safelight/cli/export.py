"""`safelight export`: a checkpoint becomes a proven bundle on the shelf."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from safelight.cli.options import Json
from safelight.console import line, note
from safelight.exits import UsageError
from safelight.settings import load_settings
from safelight.shelf import Shelf, check_name

__all__ = ["Prediction", "export"]


class Prediction(StrEnum):
    """What a unet was trained to predict."""

    EPSILON = "epsilon"
    V = "v_prediction"


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A Stable Diffusion 1.x or 2.x: a diffusers folder or a single .safetensors file."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="The bundle's name on the shelf.")],
    vae: Annotated[
        Path | None,
        typer.Option("--vae", help="A VAE in the place of its own: .safetensors file or folder."),
    ] = None,
    prediction: Annotated[
        Prediction | None,
        typer.Option("--prediction", help="What the unet predicts, if the file does not say it."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="The checkpoint's licence, for the manifest.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn a checkpoint into a bundle: ONNX graphs, hashes, and a parity report against torch."""
    from safelight.progress import StageProgress

    settings = load_settings()
    name = check_name(to)
    shelf = Shelf(settings.models, settings.cache)
    target = shelf.models / name
    if target.exists():
        raise UsageError(f"there is a model '{name}' already; it is not overwritten")
    try:
        from export import Ingredients, export_checkpoint
    except ImportError as error:
        raise UsageError(
            "export needs torch, diffusers, transformers, onnx and onnxscript",
            hint="pip install 'safelight[export]'",
        ) from error
    shelf.models.mkdir(parents=True, exist_ok=True, mode=0o700)
    ingredients = Ingredients(
        source=source, vae=vae, prediction=None if prediction is None else prediction.value
    )
    with StageProgress() as progress:
        manifest = export_checkpoint(
            ingredients, target, name=name, licence=licence, progress=progress.stage
        )
    if json:
        line({"name": manifest.name, "family": manifest.family, "path": str(target)})
    note(f"Bundle '{name}' is on the shelf and matches torch; generate with --model {name}.")
