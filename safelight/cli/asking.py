"""What people show once or type twice: a recovery phrase, a passphrase, a yes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.console import ask, is_interactive, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import RecoveryPhrase, Secret

__all__ = ["agree", "confirmation", "new_passphrase"]

TRIES = 3  # at typing the phrase back


def agree(question: str, *, yes: bool) -> None:
    """Go on if the person says yes; without a terminal only the flag --yes does."""
    if yes:
        return
    if not is_interactive():
        raise UsageError("this cannot be undone and nobody can be asked", hint="give --yes")
    if ask(f"{question} Type yes to go on: ").strip().casefold() != "yes":
        raise UsageError("nothing was changed")


def new_passphrase(file: Path | None, *, nothing: str = "nothing was made") -> "Secret":
    """Read a new passphrase from a file's first line, or ask for it twice on the terminal."""
    from safelight.access import read_passphrase
    from vault import passphrase_secret

    if file is not None:
        return read_passphrase(file)
    if not is_interactive():
        raise UsageError(
            "a new passphrase is asked for on a terminal, and there is none",
            hint="give a file whose first line it is",
        )
    first, again = ask("new passphrase: ", secret=True), ask("once more: ", secret=True)
    if first != again:
        raise UsageError(f"the two passphrases differ; {nothing}")
    return passphrase_secret(first)


def confirmation(file: Path | None) -> "Callable[[RecoveryPhrase], None]":
    """Return what shows a new phrase: in a new file, or on the terminal to be typed back."""
    if file is None and not is_interactive():
        raise UsageError(
            "without a terminal --recovery-file is needed: the recovery phrase is shown only once",
            hint="give --recovery-file F, and keep F away from this machine",
        )
    return _type_back if file is None else lambda phrase: _write(file, phrase)


def _write(file: Path, phrase: "RecoveryPhrase") -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(file, flags, 0o600)
    except FileExistsError:
        raise UsageError(
            f"the recovery file {file} exists already; it is not overwritten",
            hint="it may hold the phrase of another vault: name a new file",
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(phrase.text() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    note(f"The recovery phrase is in {file}. Move it off this machine: it opens the vault.")


def _type_back(phrase: "RecoveryPhrase") -> None:
    note("This recovery phrase opens the vault when the keyring is lost. It is shown only now:\n")
    note(f"    {phrase.text()}\n")
    wanted = "".join(phrase.text().split()).casefold()
    for _ in range(TRIES):
        typed = ask("Write it down, then type it here: ")
        if "".join(typed.split()).replace("-", "").casefold() == wanted.replace("-", ""):
            return
        note("That is not the phrase. Compare group by group.")
    raise UsageError("the recovery phrase was not confirmed; nothing was changed")
