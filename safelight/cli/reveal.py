"""`safelight reveal`: write pictures in the clear, because you asked for it."""

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

    from vault import Record

__all__ = ["reveal", "write_new"]


@with_access
def reveal(
    access: Access,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or first digits.")],
    to: Annotated[
        Path, typer.Option("--to", help="A new file, an existing folder, or - for output.")
    ],
) -> None:
    """Write pictures in the clear. Nothing but pixels leaves; the record notes that they left."""
    with access.open() as vault:
        resolved = [vault.resolve(each) for each in ids]
        folder = to.is_dir()
        if vault.read_only:
            note("The vault lies on read-only media: it cannot note that these pictures left.")
        if len(resolved) > 1 and not folder:
            raise UsageError(f"{len(resolved)} pictures need an existing folder after --to")
        for record_id in resolved:
            target = to / f"{record_id}.png" if folder else to
            disclose(vault, record_id, _sink(target), way="reveal")
            if str(target) != "-":
                note(f"{target} is a copy in the clear: the vault no longer protects that copy.")


def _sink(target: Path) -> "Callable[[Record, bytearray], None]":
    if str(target) == "-":
        if sys.stdout.isatty():
            raise UsageError("a picture is not printed on a terminal; name a file after --to")
        return lambda _record, data: _print_bytes(data)
    return lambda _record, data: write_new(target, data)


def _print_bytes(data: bytearray) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_new(target: Path, data: bytes | bytearray) -> None:
    """Write a new file, 0600, durable, whole or not at all; raises UsageError where one exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(target, flags, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{target} exists already; it is not overwritten", hint="name a new file"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:  # half a picture must not look like one
        target.unlink(missing_ok=True)
        raise
