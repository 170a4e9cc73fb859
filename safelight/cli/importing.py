"""`safelight import`: pictures of other programs come in; originals go only if asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import Json, with_access
from safelight.console import ask, is_interactive, line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from safelight.importing import Duplicate, Importer, Refused, Taken
    from safelight.importing.folder import Found
    from vault import Vault

__all__ = ["import_folder"]


@with_access
def import_folder(
    access: Access,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with pictures.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken; seals nothing.")
    ] = False,
    remove_originals: Annotated[
        bool,
        typer.Option(
            "--remove-originals", help="Afterwards remove the files that are sealed and compared."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before removing; needed without a terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Seal the pictures of a folder, with what made them.

    Reads what A1111, ComfyUI, InvokeAI, Fooocus, SwarmUI or SD.Next wrote into them.

    The files stay as they are. Each record is opened again and compared with its file; a file that
    the vault has already is passed over, so that an import that was stopped goes on.
    """
    from safelight.importing import Importer
    from safelight.importing.folder import find_pictures

    if remove_originals and not (yes or is_interactive()):
        raise UsageError(
            "originals are removed only when somebody says so, and nobody is there",
            hint="give --yes with --remove-originals",
        )
    found = find_pictures(folder)
    if not found.pictures:
        note(f"there is no PNG, JPEG or WebP file in {folder}; {found.others} others")
        return
    with access.open() as vault:
        if dry_run:
            from safelight.importing.importer import known_marks

            _follow(Importer(None, known_marks(vault)), folder, found, json=json)
            note("nothing was sealed: that is what would be taken")
            return
        done = _follow(Importer(vault), folder, found, json=json)
        if done:
            _offer(vault, folder, done, wanted=remove_originals, yes=yes)


def _follow(
    importer: "Importer", folder: Path, found: "Found", *, json: bool
) -> "list[Taken | Duplicate]":
    """Take all, say how far it is and what became of them; gives those that the vault holds."""
    from safelight.importing import Duplicate, Refused, Taken
    from safelight.importing.folder import read_sources
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress

    kept: list[Taken | Duplicate] = []
    refused: list[Refused] = []
    total = len(found.pictures)
    with Interruption() as interrupted, StageProgress() as bar:
        names = (name for name in found.pictures if not interrupted())
        for event in importer.take(read_sources(folder, names)):
            if isinstance(event, Refused):
                refused.append(event)
                note(f"{event.name} is left out: {event.reason}")
            else:
                kept.append(event)
            done = len(kept) + len(refused)
            bar.stage(f"{done} of {total} files", done / total)
            if json:
                line(_line(event))
        stopped = interrupted()
    new = [each for each in kept if isinstance(each, Taken)]
    known = sum(bool(each.program) for each in new)
    note(
        f"{len(new)} taken, {known} of them with words of a program known here; "
        f"{len(kept) - len(new)} were in the vault already, {len(refused)} are left out"
    )
    if found.others:
        note(f"{found.others} other files in {folder} were not looked at; logs may hold prompts")
    if stopped:
        raise KeyboardInterrupt
    return kept


def _line(event: "Taken | Duplicate | Refused") -> dict[str, object]:
    from safelight.importing import Refused, Taken
    from safelight.importing.jsontext import text_of

    file = text_of(event.name)  # a name on the disk need not be text
    if isinstance(event, Refused):
        return {"file": file, "outcome": "refused", "reason": event.reason}
    if isinstance(event, Taken):
        outcome = {"outcome": "taken", "id": event.record_id, "program": event.program}
        return {"file": file, **outcome}
    return {"file": file, "outcome": "duplicate", "id": event.record_id}


def _offer(
    vault: "Vault", folder: Path, done: "list[Taken | Duplicate]", *, wanted: bool, yes: bool
) -> None:
    """Remove originals if the person wants that; on a terminal they are asked."""
    from safelight.importing.originals import REMAINS, remove_originals

    if not wanted and not is_interactive():
        note(f"the originals are where they were, in the clear. {REMAINS}")
        return
    if not yes:
        note(REMAINS)
        question = f"Remove the {len(done)} originals that the vault holds? Type remove to do so: "
        if ask(question).strip().casefold() != "remove":
            note("the originals are where they were, in the clear")
            return
    gone = 0
    for name, reason in remove_originals(vault, folder, done):
        if reason:
            note(f"{name} stays: {reason}")
        else:
            gone += 1
    note(f"{gone} originals are removed. {REMAINS}")
