"""`safelight models`: the shelf of bundles."""

import typer

from safelight.cli.options import Json
from safelight.console import line, note, table
from safelight.settings import load_settings
from safelight.shelf import Shelf

__all__ = ["app"]

app = typer.Typer(help="The shelf of model bundles.", no_args_is_help=True)


@app.command("ls")
def ls(json: Json = False) -> None:
    """List the bundles on the shelf, with what they are and whether they are proven."""
    from engine import EngineError

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
        fields = {
            "name": entry.name,
            "family": manifest.family,
            "width": manifest.default_width,
            "height": manifest.default_height,
            "prediction_type": manifest.prediction_type,
            "licence": manifest.licence,
            "bytes": bundle.bytes,
            "verified": bundle.verified,
            "shipped": entry.shipped,
        }
        if json:
            line(fields)
        rows.append(_row(fields))
    if not json:
        table(("name", "family", "size", "MB", "licence", "verified"), rows)


def _row(fields: dict[str, object]) -> tuple[str, ...]:
    megabytes = f"{int(str(fields['bytes'])) / 1e6:.0f}"
    size = f"{fields['width']}x{fields['height']}"
    verified = "yes" if fields["verified"] else "no"
    return (
        str(fields["name"]),
        str(fields["family"]),
        size,
        megabytes,
        str(fields["licence"]),
        verified,
    )


@app.callback()
def root() -> None:
    """Keep `ls` a verb of its own while it is the only one."""
