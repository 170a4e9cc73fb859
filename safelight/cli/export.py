"""`safelight export`: a checkpoint becomes a proven bundle on the shelf."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.options import Json
from safelight.cli.reweight import base_bundle, reweight
from safelight.console import line, note
from safelight.exits import UsageError
from safelight.settings import load_settings
from safelight.shelf import Shelf, check_name

if TYPE_CHECKING:
    from engine.manifest import Manifest
    from export import Ingredients

__all__ = ["Prediction", "Variant", "export"]


class Prediction(StrEnum):
    """What a unet was trained to predict."""

    EPSILON = "epsilon"
    V = "v_prediction"


class Variant(StrEnum):
    """What a bundle's unet can have beside its own graph."""

    CONTROL = "control"
    SHALLOW = "shallow"


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A Stable Diffusion 1.x, 2.x or XL, or a ControlNet of 1.x or XL: a diffusers"
            " folder or a single .safetensors file. Or a bundle on the shelf, to add LoRAs to."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="The bundle's name on the shelf.")],
    vae: Annotated[
        Path | None,
        typer.Option("--vae", help="A VAE in the place of its own: .safetensors file or folder."),
    ] = None,
    tiny_vae: Annotated[
        Path | None,
        typer.Option(
            "--tiny-vae",
            help="A tiny autoencoder (TAESD) beside the VAE: .safetensors file or folder. Then"
            " `generate --decoder tiny` decodes with it.",
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", help="FILE or FILE:SCALE, merged into the weights; any number."),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            "--embedding",
            help="FILE or FILE:WORD of a textual inversion; the word is the file's name if none is"
            " given. Any number.",
        ),
    ] = None,
    prediction: Annotated[
        Prediction | None,
        typer.Option("--prediction", help="What the unet predicts, if the file does not say it."),
    ] = None,
    variants: Annotated[
        list[Variant] | None,
        typer.Option(
            "--with",
            help="A second graph of the unet that shares its weights: control takes a ControlNet's"
            " residuals, shallow reuses deep features between steps. Any number.",
        ),
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
    base = base_bundle(shelf, source)
    if base is not None:
        if vae or tiny_vae or embedding or prediction or variants:
            raise UsageError(
                "--vae, --tiny-vae, --embedding, --prediction and --with are for checkpoints; a"
                " bundle takes --lora",
                hint="export the checkpoint with all of them",
            )
        manifest = reweight(shelf, base, name, tuple(_lora(text) for text in lora or ()), licence)
        if json:
            line({"name": manifest.name, "family": manifest.family, "path": str(target)})
        return
    try:
        from export import Ingredients, Options, export_checkpoint, is_current
    except ImportError as error:
        raise UsageError(
            "export needs torch, diffusers, transformers, onnx and onnxscript",
            hint="pip install 'safelight[export]'",
        ) from error
    ingredients = Ingredients(
        source=source,
        vae=vae,
        prediction=None if prediction is None else prediction.value,
        loras=tuple(_lora(text) for text in lora or ()),
        embeddings=tuple(_embedding(text) for text in embedding or ()),
        tiny_vae=tiny_vae,
        variants=tuple(sorted({variant.value for variant in variants or ()})),
    )
    hashes = shelf.hash_cache
    if target.exists():
        if not is_current(ingredients, target, licence=licence, hash_cache=hashes):
            raise UsageError(
                f"there is a model '{name}' already, made of something else; it is not overwritten",
                hint=f"choose another name, or `safelight models rm {name}` first",
            )
        note(f"Nothing has changed: '{name}' is what this export would make.")
        manifest = shelf.open(name).manifest
    else:
        shelf.models.mkdir(parents=True, exist_ok=True, mode=0o700)
        with StageProgress() as progress:
            manifest = export_checkpoint(
                ingredients,
                target,
                name=name,
                licence=licence,
                progress=progress.stage,
                options=Options(hash_cache=hashes),
            )
        runtimes = " and ".join(dict.fromkeys(m.runtime for m in manifest.parity.measures))
        note(f"Bundle '{name}' is on the shelf and matches torch in {runtimes}.")
        if not manifest.add_on:
            note(f"Generate with --model {name}.")
            _say_of_checker(ingredients, manifest)
    if json:
        line({"name": manifest.name, "family": manifest.family, "path": str(target)})


def _say_of_checker(ingredients: "Ingredients", manifest: "Manifest") -> None:
    from export.safetychecker import left_out

    if "safety_checker" in manifest.components:
        note('Its safety checker is on; safety_checker = "off" in the configuration stops it.')
    elif reason := left_out(ingredients.open()):
        note(f"Its safety checker is left out: {reason}.")


def _lora(text: str) -> tuple[Path, float]:
    """Read FILE or FILE:SCALE; a file whose own name ends like that wins."""
    file, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        return Path(file), float(scale)
    except ValueError:
        raise UsageError(
            f"'{scale}' is no scale of a LoRA", hint="--lora FILE or --lora FILE:0.8"
        ) from None


def _embedding(text: str) -> tuple[str, Path]:
    """Read FILE or FILE:WORD; a file whose own name ends like that wins."""
    file, colon, word = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text).stem, Path(text)
    return word, Path(file)
