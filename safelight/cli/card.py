"""`safelight models show`: what a bundle's manifest says, and whether its files agree."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli.options import Json
from safelight.cli.targets import form_line, forms_of, show_forms
from safelight.console import line, result, table
from safelight.settings import load_settings
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine import Bundle
    from engine.manifest import Measure

__all__ = ["measures_table", "show"]

# What an upscaler's manifest holds at a neutral value, since it draws nothing.
DRAWN = ("prediction_type", "width", "height", "token_limit", "embed_dim", "defaults")


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model on the shelf.")],
    json: Json = False,
) -> None:
    """Show what a model is: source, sizes, proof, targets."""
    settings = load_settings()
    shelf = Shelf(settings.models, settings.cache)
    entry = shelf.find(name)
    bundle = shelf.open(name)
    fields = _fields(bundle) | {"name": name, "shipped": entry.shipped, "path": str(entry.path)}
    measures = bundle.manifest.parity.measures
    forms = forms_of(settings.cache, bundle.hash)
    if json:
        parity = [asdict(measure) for measure in measures]
        line(fields | {"parity": parity, "targets": [form_line(form) for form in forms]})
        return
    width = max(map(len, fields))
    for key, value in fields.items():
        for part in _parts(key, value):
            result(f"{key:<{width}}  {part}")
    if measures:
        result("")
        source = bundle.manifest.source
        if source.kind == "reweighted":
            result(f"Measured on its base '{source.name}': the same graphs, other weights.")
        measures_table(measures)
    if forms:
        result("")
        show_forms(forms)


def measures_table(measures: "Iterable[Measure]") -> None:
    """Print how far each runtime is from torch: errors over the largest value, PSNR in dB."""
    rows = [
        (
            each.subject,
            each.runtime,
            f"{each.max_abs:.1e}",
            f"{each.mean_abs:.1e}",
            f"{each.cosine:.8f}",
            f"{each.psnr:.1f}",
        )
        for each in measures
    ]
    table(("parity of", "runtime", "max error", "mean error", "cosine", "PSNR dB"), rows)


def _fields(bundle: "Bundle") -> dict[str, Any]:
    from engine.manifest import UPSCALER
    from engine.upscale import read_scale

    manifest = bundle.manifest
    fields: dict[str, Any] = {
        "name": manifest.name,
        "family": manifest.family,
        "bytes": bundle.bytes,
        "hash": bundle.hash,
        "source": asdict(manifest.source),
        "licence": manifest.licence,
        "prediction_type": manifest.prediction_type,
        "width": manifest.default_width,
        "height": manifest.default_height,
        "token_limit": manifest.token_limit,
        "embed_dim": manifest.embed_dim,
        "defaults": asdict(manifest.defaults),
        "components": {
            name: {"precision": part.precision, "file": part.file, "data_file": part.data_file}
            for name, part in manifest.components.items()
        },
        "exporter": dict(manifest.exporter),
        "created": manifest.created,
        "verified": bundle.verified,
    }
    if manifest.family != UPSCALER:
        return fields
    kept = {key: each for key, each in fields.items() if key not in DRAWN}
    return kept | {"scale": read_scale(bundle)}


def _parts(key: str, value: Any) -> list[str]:
    """Write one field for people, in one line or several."""
    if key == "bytes":
        return [f"{value} ({value / 1e6:.1f} MB)"]
    if key == "verified":
        return ["yes" if value else "no: without safelight.json nothing vouches for its files"]
    if key == "components":
        return [
            f"{name}: {part['precision']}, {part['data_file'] or part['file']}"
            for name, part in value.items()
        ]
    if isinstance(value, dict):
        return [f"{name}: {part}" for name, part in value.items() if part != ""] or ["unknown"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value) if value != "" else "unknown"]
