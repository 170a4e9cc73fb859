"""`safelight models`: the shelf of bundles."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli.asking import agree
from safelight.cli.card import show
from safelight.cli.options import Json
from safelight.cli.proof import verify
from safelight.cli.supply import add, pull
from safelight.cli.targets import forms_of, remove_forms
from safelight.console import line, note, table
from safelight.settings import load_settings
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from engine import Bundle

__all__ = ["app"]

DRAWN = ("width", "height", "prediction_type")

app = typer.Typer(help="The shelf of model bundles.", no_args_is_help=True)


@app.command("ls")
def ls(json: Json = False) -> None:
    """List the bundles on the shelf.

    Says what they are, the worst PSNR of their parity reports in dB, and the targets that were
    derived of them.
    """
    from engine import EngineError
    from engine.manifest import UPSCALER

    settings = load_settings()
    shelf = Shelf(settings.models, settings.cache)
    rows = []
    for entry in shelf.entries():
        try:
            bundle = shelf.open(entry.name)
        except EngineError as error:
            note(f"{entry.name}: {error}")
            continue
        manifest = bundle.manifest
        fields: dict[str, Any] = {
            "name": entry.name,
            "family": manifest.family,
            "width": manifest.default_width,
            "height": manifest.default_height,
            "prediction_type": manifest.prediction_type,
            "licence": manifest.licence,
            "bytes": bundle.bytes,
            "verified": bundle.verified,
            "shipped": entry.shipped,
            "psnr": min((each.psnr for each in manifest.parity.measures), default=None),
            "targets": [form.key.target for form in forms_of(settings.cache, bundle.hash)],
            "source": {
                "kind": manifest.source.kind,
                "name": manifest.source.name,
                "sha256": manifest.source.sha256,
            },
        }
        if manifest.family == UPSCALER:
            fields = _of_upscaler(fields, bundle)
        if json:
            line(fields)
        rows.append(_row(fields))
    if not json:
        names = ("name", "family", "size", "MB", "licence", "verified", "dB", "targets", "source")
        table(names, rows)


def _of_upscaler(fields: dict[str, Any], bundle: "Bundle") -> dict[str, Any]:
    """Put the scale in the place of what an upscaler has not."""
    from engine.upscale import read_scale

    kept = {key: each for key, each in fields.items() if key not in DRAWN}
    return kept | {"scale": read_scale(bundle)}


def _row(fields: dict[str, Any]) -> tuple[str, ...]:
    return (
        fields["name"],
        fields["family"],
        f"x{fields['scale']}" if "scale" in fields else f"{fields['width']}x{fields['height']}",
        f"{fields['bytes'] / 1e6:.0f}",
        fields["licence"],
        "yes" if fields["verified"] else "no",
        "-" if fields["psnr"] is None else f"{fields['psnr']:.0f}",
        ", ".join(dict.fromkeys(fields["targets"])) or "-",
        f"{fields['source']['kind']} {fields['source']['name']}",
    )


def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of yours on the shelf.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a model of yours and its targets from the disk."""
    settings = load_settings()
    shelf = Shelf(settings.models, settings.cache)
    shelf.removable(name)  # before anybody is asked
    agree(f"The model '{name}' will be removed from this disk.", yes=yes)
    freed = remove_forms(shelf, settings.cache, name) + shelf.remove(name)
    note(f"'{name}' is removed; {freed / 1e6:.1f} MB are free again.")


app.command("show")(show)
app.command("verify")(verify)
app.command("add")(add)
app.command("pull")(pull)
app.command("rm")(rm)
