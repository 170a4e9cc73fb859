"""`safelight models add` and `models pull`: where models come from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli.options import Json
from safelight.console import line, note
from safelight.exits import UsageError
from safelight.offline import NetworkWatch
from safelight.settings import load_settings
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from safelight.pull import Order

__all__ = ["add", "pull"]

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
VARIANT = re.compile(r"([a-z0-9_]{1,32})?")
CONFIG_LIMIT = 1 << 20  # bytes of a network's configuration; real ones have 2 KiB
LICENCE_LIMIT = 100  # characters, as of a hub's
TOKEN_LIMIT = 4096  # bytes of a token's file; a token has about forty


def add(
    source: Annotated[
        Path,
        typer.Argument(
            help="A bundle's folder, optimum's ONNX export, or an upscaler's .onnx file."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="The bundle's name on the shelf.")],
    licence: Annotated[
        str | None,
        typer.Option("--licence", help="An upscaler's licence, which no .onnx file names."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy a ready bundle onto the shelf, verified.

    `safelight export` takes checkpoints.
    """
    from safelight.intake import take_in
    from safelight.progress import StageProgress

    settings = load_settings()
    target = Shelf(settings.models, settings.cache).free_path(to)
    if source.suffix.lower() == ".onnx" and not source.is_dir():
        _add_upscaler(source, target, _licence(licence), json=json)
        return
    if licence is not None:
        raise UsageError(
            "--licence goes with an upscaler's .onnx file; a bundle names its own",
            hint="leave it out",
        )
    with StageProgress() as progress:
        bundle = take_in(source, target, progress.stage)
    if json:
        line({"name": to, "path": str(target), "bytes": bundle.bytes, "verified": bundle.verified})
    if bundle.verified:
        note(f"Bundle '{to}' is on the shelf, verified; generate with --model {to}.")
    else:
        note(
            f"'{to}' is on the shelf, unverified: a plain ONNX export has no hashes and no parity"
            f" report, so nothing vouches for it; generate with --model {to}."
        )


def _licence(text: str | None) -> str:
    if text is None:
        return "unknown"
    if not text.strip() or not text.isprintable() or len(text) > LICENCE_LIMIT:
        raise UsageError(
            "--licence takes one line of text", hint=f"at most {LICENCE_LIMIT} characters: bsd-3"
        )
    return text.strip()


def _add_upscaler(source: Path, target: Path, licence: str, *, json: bool) -> None:
    from engine import choose
    from engine.upscale import read_scale
    from safelight.progress import StageProgress
    from safelight.upscalers import take_in_upscaler

    with StageProgress() as progress:
        backend = choose("cpu", "fp32").backend
        bundle = take_in_upscaler(source, target, backend, progress.stage, licence=licence)
    scale = read_scale(bundle)
    if json:
        fields = {"name": target.name, "path": str(target), "bytes": bundle.bytes}
        line(fields | {"verified": bundle.verified, "scale": scale})
    note(f"Upscaler '{target.name}' is on the shelf: it makes pictures {scale} times as large.")


def pull(
    context: typer.Context,
    repository: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a diffusers repository.")
    ],
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit.")] = "main",
    variant: Annotated[
        str, typer.Option("--variant", help="Of the weights: fp16 has half the size.")
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option("--to", help="A new folder (checkpoints/OWNER--NAME@COMMIT of the home)."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Read the hub's token from this file's first line."),
    ] = None,
    json: Json = False,
) -> None:
    """Fetch a checkpoint from a hub: the one verb with network.

    Safetensors only; every hash is compared; a broken download goes on where it stopped.
    """
    import shlex

    from safelight.hub import check_endpoint, open_hub
    from safelight.pull import Order, folder_name, is_there
    from safelight.pull import pull as fetch
    from safelight.repository import choose

    _check_words(repository, revision, variant)
    settings = load_settings()
    endpoint = check_endpoint(settings["hub"])
    watch = context.obj if isinstance(context.obj, NetworkWatch) else NetworkWatch()
    with open_hub(endpoint, token=_token(token_file), watch=watch) as hub:
        found = hub.repository(repository, revision)
        order = Order(
            hub=endpoint,
            repository=found,
            revision=revision,
            variant=variant,
            files=choose(found, variant),
        )
        base = settings.models.parent / "checkpoints" / folder_name(order)
        folder = base if to is None else to.absolute()
        _announce(order)
        if not is_there(order, folder):
            from safelight.progress import DownloadProgress

            with DownloadProgress(order.bytes) as progress:
                fetch(hub, order, folder, progress.show_bytes)
    if json:
        line(
            {
                "path": str(folder),
                "repository": found.id,
                "commit": found.commit,
                "licence": found.licence,
                "bytes": order.bytes,
            }
        )
    network = _network_option(folder)
    what = "Make a bundle with it by:" if network else "Make a bundle of it with:"
    note(f"It is in {folder}, every hash compared. {what}")
    source = f"CHECKPOINT {network} {shlex.quote(str(folder))}" if network else None
    name = "NAME" if network else _name(found.id)
    note(f"  safelight export {source or shlex.quote(str(folder))} --to {name}")


def _network_option(folder: Path) -> str:
    """Give the option of `export` for a folder that is a VAE alone, "" for all others."""
    from engine.errors import BundleError
    from engine.jsonfile import read_json

    config = folder / "config.json"  # its size and syntax are bounded by the reader
    if (folder / "model_index.json").exists() or not config.is_file():
        return ""
    try:
        kind = read_json(config, CONFIG_LIMIT, constants=True).get("_class_name")
    except BundleError:
        return ""  # `export` says what is wrong with it
    return {"AutoencoderKL": "--vae", "AutoencoderTiny": "--tiny-vae"}.get(str(kind), "")


def _announce(order: "Order") -> None:
    found = order.repository
    note(f"{found.id} at commit {found.commit}, licence: {found.licence}")
    note(f"{len(order.files)} files, {order.bytes / 1e6:.1f} MB from {order.hub}")


def _check_words(repository: str, revision: str, variant: str) -> None:
    checks = (
        (REPOSITORY, repository, "name of a repository", "OWNER/NAME, as on the hub"),
        (REVISION, revision, "revision", "a branch, a tag or a commit"),
        (VARIANT, variant, "variant", "fp16 is the usual one"),
    )
    for pattern, text, what, hint in checks:
        if not pattern.fullmatch(text) or ".." in text or "--" in text:
            raise UsageError(f"'{text}' is no {what}", hint=hint)


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        with file.open("rb") as stream:
            words = stream.read(TOKEN_LIMIT).decode("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {file} cannot be read") from error
    if not words or not words[0].isprintable():
        raise UsageError(f"the token file {file} holds no token")
    return words[0]


def _name(repository: str) -> str:
    """Suggest a name on the shelf."""
    return re.sub(r"[^a-z0-9._-]", "-", repository.rpartition("/")[2].lower())[:64].rstrip(".")
