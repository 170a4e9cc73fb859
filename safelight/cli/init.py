"""`safelight init`: make a vault, and make sure that its recovery phrase was kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.asking import confirmation, new_passphrase
from safelight.cli.options import with_access
from safelight.console import note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import KeyStore, Secret

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

    named = access.names_passphrase
    if ephemeral and (keyring or passphrase or named):
        raise UsageError("--ephemeral stands alone: its key is in memory and nowhere else")
    if passphrase and named:
        raise UsageError(
            "--passphrase asks on the terminal, and another flag names a passphrase already",
            hint="give one of --passphrase, --passphrase-file, --passphrase-fd",
        )
    secret = new_passphrase(None) if passphrase else None
    if named or not (keyring or passphrase or ephemeral):
        secret = access.passphrase()  # of the environment or configuration only without a choice
    confirm = None if ephemeral else confirmation(recovery_file)
    store = _keystore(keyring=keyring, ephemeral=ephemeral, alone=secret is None)
    with create(
        access.settings.vault,
        keystore=store,
        passphrase=secret,
        confirm=confirm,
        allow_network=access.settings["network_vault"] == "allow",
    ) as vault:
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


def _report(path: Path, vault_id: str, store: "KeyStore | None", secret: "Secret | None") -> None:
    opens = [] if store is None else [store.name]
    opens += [] if secret is None else ["the passphrase"]
    note(f"Vault {vault_id[:8]} is made at {path}. It opens with: {', '.join(opens)}.")
