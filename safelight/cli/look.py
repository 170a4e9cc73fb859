"""`safelight ls` and `show`: read what the vault holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import Json, with_access
from safelight.console import line, result, table
from safelight.records import listed_line, peaks_in_mib, shown_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault import Kind, Record, Vault

__all__ = ["ls", "print_records", "show"]

SHORT_ID = 8  # digits of an id in tables; any unique prefix works as an ID
PROMPT_WIDTH = 60  # characters of a prompt in tables


@with_access
def ls(
    access: Access,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", help="Only records with all these words; - reads them from input."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1000,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Failed and cancelled runs instead of pictures.")
    ] = False,
    json: Json = False,
) -> None:
    """List pictures, newest first. Words after --search can be in prompts, tags, notes, models."""
    from safelight.orders import read_bounded
    from vault import Kind

    if search == "-":
        search = read_bounded("-", "the search")
    with access.open() as vault:
        kinds = (Kind.ATTEMPT if attempts else Kind.PICTURE,)
        print_records(_found(vault, search, kinds, limit), json=json)


def _found(
    vault: "Vault", search: str | None, kinds: "tuple[Kind, ...]", limit: int
) -> "Iterator[Record]":
    if search is None:
        return vault.list(kinds=kinds, limit=limit)
    return vault.search(search, kinds=kinds, limit=limit)


def print_records(records: "Iterator[Record]", *, json: bool) -> None:
    """Print records as JSON lines, or as a table of the columns that people look for."""
    if json:
        for record in records:
            line(listed_line(record))
        return
    rows = []
    for record in records:
        fields = listed_line(record)
        prompt = fields["prompt"].replace("\n", " ")
        short = prompt if len(prompt) <= PROMPT_WIDTH else prompt[: PROMPT_WIDTH - 1] + "…"
        size = f"{fields['width']}x{fields['height']}"
        created = fields["created"][:16].replace("T", " ")
        rows.append(
            (record.id[:SHORT_ID], created, size, str(fields["seed"]), fields["model"], short)
        )
    table(("id", "created", "size", "seed", "model", "prompt"), rows)


@with_access
def show(
    access: Access,
    record_id: Annotated[str, typer.Argument(metavar="ID", help="An id, or its first digits.")],
    json: Json = False,
) -> None:
    """Show a record: prompts, settings, what made it, what left."""
    with access.open() as vault:
        fields = shown_line(vault.get(vault.resolve(record_id)))
    if json:
        line(fields)
        return
    fields["peak_memory"] = peaks_in_mib(fields)
    width = max(map(len, fields))
    for name, value in fields.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())  # noqa: PLW2901 - shown flat
        elif isinstance(value, list):
            value = ", ".join(map(str, value))  # noqa: PLW2901 - shown flat
        if value not in ("", None):
            result(f"{name:<{width}}  {value}")
