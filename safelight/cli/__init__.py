"""The command line: one module a group of verbs; none imports more than typer at start."""

import typer

from safelight.cli import (
    beside,
    copies,
    export,
    gallery,
    generate,
    importing,
    init,
    keys,
    label,
    leave,
    look,
    models,
    reproduce,
    reveal,
    status,
    trash,
    upkeep,
    upscale,
)

__all__ = ["app"]

app = typer.Typer(
    name="safelight",
    help="Fast, private Stable Diffusion on your own machine. Nothing leaves it; all is sealed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb, function in (
    ("init", init.init),
    ("status", status.status),
    ("doctor", status.doctor),
    ("config", status.config),
    ("generate", generate.generate),
    ("upscale", upscale.upscale),
    ("gallery", gallery.gallery),
    ("ls", look.ls),
    ("show", look.show),
    ("rate", label.rate),
    ("favourite", label.favourite),
    ("note", label.note_on),
    ("trash", trash.trash),
    ("untrash", trash.untrash),
    ("purge", trash.purge),
    ("reveal", reveal.reveal),
    ("import", importing.import_folder),
    ("reproduce", reproduce.reproduce),
    ("export", export.export),
):
    app.command(verb)(function)
for verb, function in (("tag", label.tag), ("album", label.album)):
    app.command(verb, cls=label.NamesCommand)(function)
app.add_typer(models.app, name="models")
app.add_typer(beside.bench, name="bench")

vault = typer.Typer(
    help="Keys, retention, backup and care of the vault itself.", no_args_is_help=True
)
for verb, function in (
    ("recover", keys.recover),
    ("rotate", keys.rotate),
    ("retention", trash.retention),
    ("files", upkeep.files),
    ("verify", upkeep.verify),
    ("repair", upkeep.repair),
    ("backup", copies.backup),
    ("restore", copies.restore),
    ("archive", leave.archive),
    ("takeout", leave.takeout),
):
    vault.command(verb)(function)
vault.add_typer(keys.passphrase, name="passphrase")
app.add_typer(vault, name="vault")


def _version(wanted: bool) -> None:
    if wanted:
        from safelight import __version__
        from safelight.console import result

        result(f"safelight {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Fast, private Stable Diffusion on your own machine. Nothing leaves it; all is sealed."""
