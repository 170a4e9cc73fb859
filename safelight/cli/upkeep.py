"""`safelight vault verify|repair|files`: check, mend, and say what lies where."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access
from safelight.cli.options import AskPhrase, Json, PhraseFile, with_access
from safelight.cli.unlocking import unlock_for
from safelight.console import line, note, result, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from safelight.settings import Settings
    from vault.inventory import FileEntry
    from vault.mending import RepairReport
    from vault.page import Problem
    from vault.verify import VerifyReport

__all__ = ["files", "print_problems", "problem_line", "repair", "verify"]

MB = 1_000_000


@with_access
def verify(
    access: Access,
    deep: Annotated[
        bool, typer.Option("--deep", help="Open every sealed file whole, not only its head.")
    ] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    json: Json = False,
) -> None:
    """Check the whole vault: keys, records, files, strays.

    Ends with status 4 when something is wrong, after all of it was looked at.
    """
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress

    with (
        access.open_somehow(phrase_file, ask_phrase=phrase) as vault,
        Interruption() as interrupted,
        StageProgress() as bar,
    ):
        report = vault.care.verify(deep=deep, progress=bar.stage, cancelled=interrupted)
    _say_verified(report, json=json)
    if not report.complete:
        raise KeyboardInterrupt
    if report.problems:
        raise _damaged(report.problems, report.damaged_records, report.records)


def _say_verified(report: "VerifyReport", *, json: bool) -> None:
    if json:
        for problem in report.problems:
            line(problem_line(problem))
        line(
            {
                "checked": report.checked,
                "deep": report.deep,
                "complete": report.complete,
                "records": report.records,
                "files": report.blobs,
                "problems": len(report.problems),
                "orphans": report.orphans,
            }
        )
    else:
        print_problems(report.problems)
    how = "opened" if report.deep else "looked at"
    note(f"{report.records} records and {report.blobs} sealed files were {how}.")
    if report.orphans:
        note(
            f"{report.orphans} sealed files are named by no record, as saves that were cut off "
            "leave them; `safelight vault repair` removes them."
        )
    if not report.complete:
        note("stopped before everything was looked at")


@with_access
def repair(
    access: Access,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    json: Json = False,
) -> None:
    """Mend what can be mended without losing anything.

    That is VAULT, folders, and files of no record.

    What is damaged otherwise is listed, and stays: `vault restore` has it from a backup.
    """
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress
    from vault.mending import repair as mend

    path = access.settings.vault
    unlock = unlock_for(access, path, phrase_file, ask_phrase=phrase)
    with Interruption() as interrupted, StageProgress() as bar:
        report = mend(path, unlock, dry_run=not yes, progress=bar.stage, cancelled=interrupted)
    _say_repaired(report, json=json)
    if not report.complete and not report.kept:
        raise KeyboardInterrupt
    lost = [problem for problem in report.problems if problem.kind != "foreign"]
    if yes and lost:
        raise _damaged(lost, len({problem.record_id for problem in lost} - {None}), None)


def _say_repaired(report: "RepairReport", *, json: bool) -> None:
    if json:
        for problem in report.problems:
            line(problem_line(problem))
        line(
            {
                "done": not report.dry_run,
                "header": report.header,
                "folders": report.folders,
                "orphans": report.orphans,
                "orphan_bytes": report.orphan_bytes,
                "kept": report.kept,
                "problems": len(report.problems),
            }
        )
    else:
        print_problems(report.problems)
    would = "would be" if report.dry_run else "was"
    things: list[str] = []
    if report.header:
        things.append(f"VAULT {would} written anew.")
    if report.folders:
        things.append(f"{report.folders} missing folders: each {would} made.")
    if report.orphans:
        size = f"{report.orphan_bytes / MB:.1f} MB"
        things.append(f"{report.orphans} files of no record ({size}): each {would} removed.")
    for thing in things or ["There is nothing to mend."]:
        note(thing)
    if report.kept:
        note(f"No file of no record is removed: {report.kept}.")
    if things and report.dry_run:
        note("Nothing was changed. --yes does it.")


@with_access
def files(
    access: Access,
    every: Annotated[
        bool, typer.Option("--all", help="Each sealed file by its name, with its record.")
    ] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    json: Json = False,
) -> None:
    """List every file that safelight keeps, and what it gives away."""
    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault:
        entries = vault.care.inventory(every=every)
    rows = [*map(_entry_line, entries), *_outside(access.settings)]
    if json:
        for row in rows:
            line(row)
        return
    table(
        ("path", "files", "bytes", "what for", "gives away"),
        [
            (row["path"], str(row["count"]), str(row["bytes"]), row["purpose"], row["reveals"])
            for row in rows
        ],
    )


def _damaged(problems: "Sequence[Problem]", damaged: int, records: int | None) -> Exception:
    """Return the error that ends a command which found damage; records: how many there are."""
    from vault import DamagedError

    if damaged:
        noun = "record" if records is None and damaged == 1 else "records"
        of = "" if records is None else f" of {records}"
        what = f"{damaged}{of} {noun} {'is' if damaged == 1 else 'are'} damaged"
        if len(problems) > damaged:
            what += f", and there are {len(problems)} problems in all"
        return DamagedError(what, hint="a backup may have them whole")
    return DamagedError(
        f"{len(problems)} problems were found, none of them in a record that opens",
        hint="`safelight vault repair` mends what can be mended without losing anything",
    )


def print_problems(problems: "Sequence[Problem]") -> None:
    """Print problems for people, one a line, on standard output."""
    for problem in problems:
        result(f"{problem.kind:<8} {problem.record_id or '-':<32}  {problem.text}")


def problem_line(problem: "Problem") -> dict[str, Any]:
    """Return a problem as a line of JSON."""
    return {"problem": problem.kind, "record": problem.record_id, "text": problem.text}


def _entry_line(entry: "FileEntry") -> dict[str, Any]:
    return {
        "path": entry.path,
        "count": entry.count,
        "bytes": entry.bytes,
        "purpose": entry.purpose,
        "reveals": entry.reveals,
    }


def _outside(settings: "Settings") -> "Iterator[dict[str, Any]]":
    """Yield what safelight keeps outside of the vault, in the clear."""
    places = (
        (settings.config, "your settings", "Where the vault is, which model and device you chose."),
        (settings.models, "models", "Which models you have, and since when."),
        (
            settings.cache,
            "what engines made of the models, for a quicker start",
            "Which models and devices were used, and when; nothing of a picture.",
        ),
    )
    for path, purpose, reveals in places:
        sizes = list(_sizes(path))
        yield {
            "path": str(path),
            "count": len(sizes),
            "bytes": sum(sizes),
            "purpose": purpose,
            "reveals": reveals,
        }


def _sizes(path: Path) -> "Iterator[int]":
    """Yield the bytes of each file at or below a path; links are not followed."""
    if not path.is_dir():
        if os.path.lexists(path):
            yield path.lstat().st_size
        return
    for folder, _folders, names in os.walk(path):
        for name in names:
            yield (Path(folder) / name).lstat().st_size
