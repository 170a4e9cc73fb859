"""`safelight trash` and `untrash`: hide records, and bring them back."""

from typing import Annotated

import typer

from safelight.access import Access
from safelight.cli.look import print_records
from safelight.cli.options import Json, with_access
from safelight.console import note
from safelight.exits import UsageError

__all__ = ["trash", "untrash"]

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Ids, or their first digits.")
]


@with_access
def trash(
    access: Access,
    ids: Ids = None,
    ls: Annotated[bool, typer.Option("--ls", help="List what is in the trash.")] = False,
    json: Json = False,
) -> None:
    """Move records to the trash: hidden, sealed as before, and restorable with `untrash`."""
    if ls == bool(ids):
        raise UsageError("give the ids to trash, or --ls alone to list the trash")
    with access.open() as vault:
        if ls:
            print_records(vault.list(trashed=True), json=json)
            return
        records = vault.trash([vault.resolve(each) for each in ids or ()])
    note(f"{len(records)} in the trash; `safelight untrash` brings them back.")


@with_access
def untrash(access: Access, ids: Ids = None) -> None:
    """Bring records back from the trash."""
    if not ids:
        raise UsageError("give the ids to bring back; `safelight trash --ls` lists the trash")
    with access.open() as vault:
        records = vault.untrash([vault.resolve(each) for each in ids])
    note(f"{len(records)} back from the trash.")
