"""`safelight vault backup` and `restore`: copies of the vault, sealed as it is."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import AskPhrase, Json, PhraseFile, with_access
from safelight.cli.unlocking import unlock_for
from safelight.cli.upkeep import print_problems, problem_line
from safelight.console import line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Unlock
    from vault.backup import RestoreReport

__all__ = ["backup", "restore"]

MB = 1_000_000


@with_access
def backup(
    access: Access,
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="New, empty, or an earlier backup of this vault.")
    ],
    index: Annotated[
        bool, typer.Option("--index", help="Only the index, which holds all keys.")
    ] = False,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Open every file that the backup has, and copy again what is damaged."
        ),
    ] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    json: Json = False,
) -> None:
    """Copy the vault, sealed as it is, while it may be in use.

    Again later copies only what is new; of what is there it looks at sizes and heads.
    A backup is a vault itself: it opens with the recovery phrase or the passphrase on any machine.
    What the vault deleted goes from the backup, too.
    """
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress

    with (
        access.open_somehow(phrase_file, ask_phrase=phrase) as vault,
        Interruption() as interrupted,
        StageProgress() as bar,
    ):
        report = vault.care.backup(
            target, index_only=index, deep=deep, progress=bar.stage, cancelled=interrupted
        )
    if not report.complete:
        note("stopped: an earlier backup stands as it was, and the next one goes on from here")
        raise KeyboardInterrupt
    if json:
        line(
            {
                "target": str(report.target),
                "when": report.when,
                "full": report.full,
                "records": report.records,
                "files": report.files,
                "copied": report.copied,
                "copied_bytes": report.copied_bytes,
                "healed": report.healed,
                "deep": report.deep,
                "removed": report.removed,
            }
        )
    if index:
        note(
            f"The index with the keys of {report.records} records is in {report.target}; the "
            "pictures themselves are in the vault alone."
        )
        return
    note(
        f"{report.records} records are in {report.target}: {report.copied - report.healed} new "
        f"files ({report.copied_bytes / MB:.1f} MB copied), {report.files - report.copied} there "
        f"already, {report.removed} gone with what was deleted."
    )
    if report.healed:
        note(f"{report.healed} files of the earlier backup were damaged and are copied again.")


@with_access
def restore(
    access: Access,
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A backup, or a vault's folder.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Restore what opens, and list what does not.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Move a vault that is there aside; it is not deleted."),
    ] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    json: Json = False,
) -> None:
    """Make a vault from a backup, at the vault's own place.

    The backup is not changed.
    It opens with what opened the backup. On a new machine, `vault recover` comes next.
    """
    target = access.settings.vault
    unlock = unlock_for(access, source, phrase_file, ask_phrase=phrase)
    aside = None
    if replace and _is_vault(target):
        waiting = target.with_name(f"{target.name}.restoring")
        if _is_vault(waiting):
            raise UsageError(
                f"an earlier restore lies whole at {waiting}: it never took its place",
                hint=f"Look at it with --vault {waiting}; move or remove it, then restore again.",
            )
        report = _restore(source, waiting, unlock, partial=partial)
        aside = _swap(target, waiting)
    else:
        report = _restore(source, target, unlock, partial=partial)
    _say_restored(report, target, aside, json=json)


def _is_vault(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in ("VAULT", "index.sqlite"))


def _restore(source: Path, target: Path, unlock: "Unlock", *, partial: bool) -> "RestoreReport":
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress
    from vault.backup import restore as restore_vault

    with Interruption() as interrupted, StageProgress() as bar:
        report = restore_vault(
            source, target, unlock, partial=partial, progress=bar.stage, cancelled=interrupted
        )
    if not report.complete:
        note(f"stopped: {target} is not a vault yet, and the same command goes on from here")
        raise KeyboardInterrupt
    return report


def _swap(target: Path, waiting: Path) -> Path:
    """Put the restored vault in the place of the old one; return where the old one is now."""
    from vault.lock import VaultLock

    aside = target.with_name(f"{target.name}.replaced-{time.strftime('%Y%m%d-%H%M%S')}")
    lock = VaultLock(target / "lock")
    try:
        with lock.exclusive():  # nobody is in the middle of a change
            target.rename(aside)
            waiting.rename(target)
    finally:
        lock.close()
    return aside


def _say_restored(report: "RestoreReport", target: Path, aside: Path | None, *, json: bool) -> None:
    if json:
        for problem in report.problems:
            line(problem_line(problem))
        line(
            {
                "vault": str(target),
                "vault_id": report.vault_id,
                "records": report.records,
                "files": report.files,
                "bytes": report.bytes,
                "problems": len(report.problems),
                "replaced": None if aside is None else str(aside),
            }
        )
    else:
        print_problems(report.problems)
    if aside is not None:
        note(f"The vault that was there is now at {aside}; nothing of it was changed.")
    if report.warning:
        note(f"warning: {report.warning}")
    note(f"{report.records} records with {report.files} sealed files are restored to {target}.")
    if report.problems:
        note(f"{len(report.problems)} things of the backup did not open and are not restored.")
