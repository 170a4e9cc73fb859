"""`safelight reveal`: write pictures in the clear, because you asked for it."""

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import with_access
from safelight.console import note
from safelight.disclose import disclose
from safelight.exits import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from safelight.sharing import Parcel, Share
    from vault import Record, Vault

__all__ = ["check_new", "reveal", "write_new"]

_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_STRIP_HINT = "--profile strip leaves pixels alone"


@with_access
def reveal(
    access: Access,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or first digits.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="A new file, an existing folder, or - for output."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Make the file anew with: strip (pixels alone), minimal (the mark that an AI made "
            "it), a1111 (prompts and settings as text), full (all settings as JSON).",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="png, webp or jpeg; makes the file anew.", show_default=False
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            "--redact", help="Take this out of every text that leaves; - reads them, a line each."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would leave, and write nothing.")
    ] = False,
) -> None:
    """Write pictures in the clear. The record notes that they left.

    What was drawn here is sealed without a word in it, and so leaves; what was imported leaves as
    the file that it was. With --profile, --format or --redact the file is made anew (strip, png).
    """
    share = _share(profile, file_format, redact)
    if to is None and not dry_run:
        raise UsageError("say where to: --to names a new file, an existing folder, or -")
    with access.open() as vault:
        resolved = [vault.resolve(each) for each in ids]
        if to is None or dry_run:
            for record_id in resolved:
                _say(vault.get(record_id), vault.read(record_id, "picture"), share)
            return
        if vault.read_only:
            note("The vault lies on read-only media: it cannot note that these pictures left.")
        if len(resolved) > 1 and not to.is_dir():
            raise UsageError(f"{len(resolved)} pictures need an existing folder after --to")
        for record_id in resolved:
            _reveal(vault, record_id, to, share)


def _share(
    profile: str | None, file_format: str | None, redact: list[str] | None
) -> "Share | None":
    """Give how files are made anew, or None for those that are sealed."""
    from safelight.orders import read_bounded
    from safelight.sharing import Share

    if profile is None and file_format is None and redact is None:
        return None
    words = [
        word
        for each in redact or ()
        for word in (read_bounded("-", "the redactions").splitlines() if each == "-" else [each])
        if word.strip()
    ]
    return Share(profile=profile or "strip", format=file_format or "png", redactions=tuple(words))


def _reveal(vault: "Vault", record_id: str, to: Path, share: "Share | None") -> None:
    put = _sink(to)

    def sink(record: "Record", data: bytearray) -> None:
        parcel = _say(record, data, share)
        if parcel is None:
            suffix = _SUFFIXES.get(record.blobs["picture"].media_type, "bin")
            put(f"{record_id}.{suffix}", data)
        else:
            put(f"{record_id}.{parcel.suffix}", parcel.data)

    disclose(vault, record_id, sink, way="reveal" if share is None else "share")


def _say(record: "Record", data: bytearray, share: "Share | None") -> "Parcel | None":
    """Say all that leaves with a picture; give the file that was made anew, or None."""
    from safelight.sharing import pack

    short = record.id[:8]
    if share is None:
        if "imported" in record.metadata:
            note(
                f"{short} leaves as the file that was imported, text in it included; {_STRIP_HINT}"
            )
        return None
    parcel = pack(record, data, share)
    size = f"{parcel.width}x{parcel.height}"
    note(f"{short} leaves as {parcel.media_type}, {size} pixels, {len(parcel.data)} bytes, with")
    for name, text in parcel.fields.items():
        note(f"  {name}: {text}")
    if not parcel.fields:
        note("  nothing but pixels")
    return parcel


def _sink(to: Path) -> "Callable[[str, bytes | bytearray], None]":
    """Give what takes a file's name in a folder, and its bytes."""
    if str(to) == "-":
        if sys.stdout.isatty():
            raise UsageError("a picture is not printed on a terminal; name a file after --to")
        return lambda _name, data: _print_bytes(data)
    folder = to.is_dir()

    def write(name: str, data: bytes | bytearray) -> None:
        target = to / name if folder else to
        write_new(target, data)
        note(f"{target} is a copy in the clear: the vault no longer protects that copy.")

    return write


def _print_bytes(data: bytes | bytearray) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_new(target: Path, data: bytes | bytearray) -> None:
    """Write a new file, 0600, durable, whole or not at all; raises UsageError where one exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(target, flags, 0o600)
    except FileExistsError:
        raise _taken(target) from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:  # half a picture must not look like one
        target.unlink(missing_ok=True)
        raise


def check_new(target: Path) -> None:
    """Refuse early what `write_new` would: a name that is taken (UsageError), a folder that is not
    there or that cannot be written to (OSError).
    """
    if os.path.lexists(target):
        raise _taken(target)
    if not target.parent.is_dir():
        number = errno.ENOENT
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        number = errno.EACCES
    else:
        return
    raise OSError(number, os.strerror(number), str(target))


def _taken(target: Path) -> UsageError:
    return UsageError(f"{target} exists already; it is not overwritten", hint="name a new file")
