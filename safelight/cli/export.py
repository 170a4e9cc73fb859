"""`safelight export`: a checkpoint becomes a proven bundle on the shelf, and a bundle's forms."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli.options import Json
from safelight.cli.reweight import base_bundle, reweight
from safelight.cli.targets import ONNX, TensorRt, check_target, derive_form
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
    THIN = "thin"


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A Stable Diffusion 1.x, 2.x or XL, or a ControlNet of 1.x or XL: a diffusers"
            " folder or a single .safetensors file. Or a bundle on the shelf: to add LoRAs to, or"
            " (without --to) to derive a form of."
        ),
    ],
    to: Annotated[str | None, typer.Option("--to", help="The bundle's name on the shelf.")] = None,
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
            " residuals, shallow reuses deep features between steps, thin has fewer keys in its"
            " largest attentions. Any number.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="The checkpoint's licence, for the manifest.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target", help="onnx is the bundle; openvino, int8, cuda, tensorrt: a form of it."
        ),
    ] = "onnx",
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", help="WIDTHxHEIGHT[xBATCH] that a form is for; any number."),
    ] = None,
    accept_loss: Annotated[
        float | None,
        typer.Option("--accept-loss", help="Keep a form with so low a PSNR against fp32, in dB."),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="tensorrt: plans whose weights can be exchanged, slower."),
    ] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            help="tensorrt: a FILE that keeps measured kernels, so that the next build is quicker.",
        ),
    ] = None,
    ep_context: Annotated[
        bool,
        typer.Option(
            "--ep-context",
            help="tensorrt: an EP-context model for ONNX Runtime's provider and TensorRT 10.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs, and prove it.

    With --target, derive what one runtime runs, into the cache: of that bundle, or, without --to,
    of one that is on the shelf.
    """
    settings = load_settings()
    shapes = shape or []
    check_target(target, shapes, accept_loss)
    tensorrt = TensorRt(refit=refit, timing_cache=timing_cache, ep_context=ep_context)
    tensorrt.check(target)
    shelf = Shelf(settings.models, settings.cache)
    ingredients: dict[str, Any] = {
        "source": source,
        "vae": vae,
        "tiny_vae": tiny_vae,
        "prediction": None if prediction is None else prediction.value,
        "loras": tuple(_lora(text) for text in lora or ()),
        "embeddings": tuple(_embedding(text) for text in embedding or ()),
        "variants": tuple(sorted({variant.value for variant in variants or ()})),
    }
    if to is None:
        given = [key for key, value in (ingredients | {"licence": licence}).items() if value]
        name, made = _on_shelf(source, target, given), {}
    else:
        name = check_name(to)
        base = base_bundle(shelf, source)
        if base is None:
            made = _bundle(ingredients, shelf, name, licence)
        else:
            _check_only_loras(ingredients)
            manifest = reweight(shelf, base, name, ingredients["loras"], licence)
            made = _made(manifest, shelf.models / name)
    if target != ONNX:
        made = {"name": name} | derive_form(
            shelf,
            settings,
            name,
            target=target,
            shapes=shapes,
            accept_loss=accept_loss,
            tensorrt=tensorrt,
        )
    if json:
        line(made)


def _on_shelf(source: Path, target: str, given: list[str]) -> str:
    """Give the name of the bundle whose form is asked for; what is for checkpoints is refused."""
    if target == ONNX or given != ["source"]:
        raise UsageError(
            "export needs --to NAME for a checkpoint",
            hint="without it SOURCE is a bundle on the shelf, and --target says what to derive",
        )
    return str(source)


def _bundle(given: dict[str, Any], shelf: Shelf, name: str, licence: str | None) -> dict[str, Any]:
    """Make the bundle unless it is there already; gives what to print of it."""
    from safelight.progress import StageProgress

    target = shelf.models / name
    try:
        from export import Ingredients, Options, export_checkpoint, is_current
    except ImportError as error:
        raise UsageError(
            "export needs torch, diffusers, transformers, onnx and onnxscript",
            hint="pip install 'safelight[export]'",
        ) from error
    ingredients = Ingredients(**given)
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
            # What lies on the disk now is what was proven; and its hashes are known from here on.
            progress.stage("read back", 1.0)
            shelf.open(name)
        runtimes = " and ".join(dict.fromkeys(m.runtime for m in manifest.parity.measures))
        note(f"Bundle '{name}' is on the shelf and matches torch in {runtimes}.")
        if not manifest.add_on:
            note(f"Generate with --model {name}.")
            _say_of_checker(ingredients, manifest)
    return _made(manifest, target)


def _made(manifest: "Manifest", folder: Path) -> dict[str, Any]:
    return {"name": manifest.name, "family": manifest.family, "path": str(folder)}


def _check_only_loras(ingredients: dict[str, Any]) -> None:
    kept = {"source", "loras"}
    if any(value for key, value in ingredients.items() if key not in kept):
        raise UsageError(
            "--vae, --tiny-vae, --embedding, --prediction and --with are for checkpoints; a bundle"
            " takes --lora",
            hint="export the checkpoint with all of them",
        )


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
