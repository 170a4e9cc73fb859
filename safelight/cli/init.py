"""`safelight init`: make a vault, and make sure that its recovery phrase was kept."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import with_access
from safelight.console import ask, is_interactive, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vault import KeyStore, RecoveryPhrase, Secret

__all__ = ["init"]

_CHOICES = (
    "choose: --passphrase-file F (or --passphrase on a terminal): a passphrase opens it; "
    "--ephemeral: keys stay in memory and are gone at log-out; or start a keyring and use --keyring"
)


@with_access
def init(
    access: Access,
    keyring: Annotated[bool, typer.Option("--keyring", help="Key in the OS keyring.")] = False,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase on the terminal.")
    ] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Key in memory only; no recovery.")
    ] = False,
    recovery_file: Annotated[
        Path | None,
        typer.Option("--recovery-file", help="Write the recovery phrase to this new file."),
    ] = None,
) -> None:
    """Make a vault. Its key goes where you choose; without a keyring and a choice it refuses."""
    from vault import create

    secret = access.passphrase()
    if passphrase and secret is None:
        secret = _new_passphrase()
    if ephemeral and (keyring or secret is not None):
        raise UsageError("--ephemeral stands alone: its key is in memory and nowhere else")
    if not ephemeral and recovery_file is None and not is_interactive():
        raise UsageError(
            "without a terminal --recovery-file is needed: the recovery phrase is shown only once",
            hint="give --recovery-file F, and keep F away from this machine",
        )
    store = _keystore(keyring=keyring, ephemeral=ephemeral, alone=secret is None)
    confirm = None if ephemeral else _confirmation(recovery_file)
    with create(access.settings.vault, keystore=store, passphrase=secret, confirm=confirm) as vault:
        _report(access.settings.vault, vault.status().vault_id, store, secret)


def _keystore(*, keyring: bool, ephemeral: bool, alone: bool) -> "KeyStore | None":
    """Choose where the key lives. alone: there is no passphrase, so there must be a key store."""
    from vault import KernelKeyStore, KeyStoreAbsentError, find_keystore

    if ephemeral:
        return KernelKeyStore()
    if not keyring and not alone:
        return None
    try:
        return find_keystore()
    except KeyStoreAbsentError as error:
        raise KeyStoreAbsentError(str(error), hint=_CHOICES) from error


def _new_passphrase() -> "Secret":
    from vault import passphrase_secret

    if not is_interactive():
        raise UsageError("--passphrase asks on a terminal, and there is none")
    first, again = ask("new passphrase: ", secret=True), ask("once more: ", secret=True)
    if first != again:
        raise UsageError("the two passphrases differ; nothing was made")
    return passphrase_secret(first)


def _confirmation(file: Path | None) -> "Callable[[RecoveryPhrase], None]":
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
    for _ in range(3):
        typed = ask("Write it down, then type it here: ")
        if "".join(typed.split()).replace("-", "").casefold() == wanted.replace("-", ""):
            return
        note("That is not the phrase. Compare group by group.")
    raise UsageError("the recovery phrase was not confirmed; no vault was made")


def _report(path: Path, vault_id: str, store: "KeyStore | None", secret: "Secret | None") -> None:
    opens = [] if store is None else [store.name]
    opens += [] if secret is None else ["the passphrase"]
    note(f"Vault {vault_id[:8]} is made at {path}. It opens with: {', '.join(opens)}.")
