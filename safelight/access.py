"""Open the vault for a command: which key, asked where, and what to say when none fits."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.console import ask, is_interactive, note
from safelight.exits import UsageError
from safelight.hardening import hide_memory
from safelight.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection

    from vault import Secret, Unlock, Vault, VaultSummary

__all__ = ["Access", "asked_passphrase", "read_passphrase", "read_phrase"]

MAX_PASSPHRASE = 4096  # bytes read from a file or descriptor


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Where the vault is, and what the command line offers to open it with.

    passphrase_fd: an open file descriptor, or -1 for none. It wins over the passphrase file.
    """

    settings: Settings
    passphrase_fd: int = -1

    def open(self, *, warn: bool = True) -> "Vault":
        """Open the vault with a given passphrase, else the pinned key store, else by asking."""
        vault = self._open(self.summary())
        return self._warned(vault) if warn else vault

    def open_with_phrase(self, file: Path | None) -> "Vault":
        """Open the vault with the recovery phrase from a file, else by asking for it."""
        from vault import PhraseUnlock

        hide_memory()
        self.summary()
        return self._warned(self._unlock(PhraseUnlock(read_phrase(file))))

    def open_somehow(self, phrase_file: Path | None, *, ask_phrase: bool) -> "Vault":
        """Open the vault with the recovery phrase if that is asked for, else as `open` does."""
        if ask_phrase or phrase_file is not None:
            return self.open_with_phrase(phrase_file)
        return self.open()

    def _open(self, summary: "VaultSummary") -> "Vault":
        from vault import BothUnlock, KeyStoreUnlock, LockedError, PassphraseUnlock

        hide_memory()
        openers = {slot.type for slot in summary.slots}
        given = self.passphrase_for(openers)
        if "both" in openers:
            return self._unlock(BothUnlock(given or asked_passphrase()))
        if given is not None:
            return self._unlock(PassphraseUnlock(given))
        if "keyring" in openers:
            try:
                return self._unlock(KeyStoreUnlock())
            except LockedError:
                if not ("passphrase" in openers and is_interactive()):
                    raise
        return self._unlock(PassphraseUnlock(asked_passphrase()))

    def _unlock(self, unlock: "Unlock") -> "Vault":
        from vault import open_vault

        allow = self.settings["network_vault"] == "allow"
        return open_vault(self.settings.vault, unlock, allow_network=allow)

    def _warned(self, vault: "Vault") -> "Vault":
        for warning in vault.warnings:
            note(f"warning: {warning}")
        if vault.is_old_copy:
            note("hint: if you put this copy there yourself, `safelight status --accept` takes it")
        return vault

    def summary(self) -> "VaultSummary":
        """Look at the vault without a key; raises NotFoundError where there is none."""
        from vault import NotFoundError, inspect

        summary = inspect(self.settings.vault)
        if summary.state != "ready":
            raise NotFoundError(
                f"there is no vault at {self.settings.vault}", hint="`safelight init` makes one"
            )
        return summary

    @property
    def names_passphrase(self) -> bool:
        """Say whether a flag names the passphrase, and not the environment or configuration."""
        named = self.settings.values["passphrase_file"].source == "flag"
        return named or self.passphrase_fd >= 0

    def passphrase_for(self, openers: "Collection[str]") -> "Secret | None":
        """Read the passphrase for a vault with these openers, or give None.

        One that no flag names is left alone where the key store opens the vault and it does not.
        """
        keyring_alone = "keyring" in openers and not {"passphrase", "both"} & {*openers}
        return None if keyring_alone and not self.names_passphrase else self.passphrase()

    def passphrase(self) -> "Secret | None":
        """Read the passphrase from the descriptor or file that was named, or give None."""
        if self.passphrase_fd >= 0:
            return read_passphrase(self.passphrase_fd)
        file = self.settings["passphrase_file"]
        return read_passphrase(Path(file).expanduser()) if file else None


def asked_passphrase() -> "Secret":
    """Ask for the passphrase on the terminal; raises LockedError where there is none."""
    from vault import LockedError, passphrase_secret

    if not is_interactive():
        raise LockedError(
            "this vault opens with its passphrase, and none was given",
            hint="give --passphrase-file F, --passphrase-fd N or SAFELIGHT_PASSPHRASE_FILE",
        )
    return passphrase_secret(ask("passphrase: ", secret=True))


def read_phrase(file: Path | None) -> str:
    """Read a recovery phrase as it was written down: from a file, else from the terminal."""
    if file is None:
        if not is_interactive():
            raise UsageError(
                "the recovery phrase is asked for on a terminal, and there is none",
                hint="give --phrase-file F",
            )
        return ask("recovery phrase: ", secret=True)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PASSPHRASE + 1)
    except OSError as error:
        raise UsageError(
            f"the recovery phrase cannot be read from {file}: {os.strerror(error.errno or 0)}"
        ) from error
    if len(data) > MAX_PASSPHRASE:
        raise UsageError(f"{file} is longer than {MAX_PASSPHRASE} bytes: that is no phrase")
    return data.decode("ascii", "replace")


def read_passphrase(source: Path | int) -> "Secret":
    """Read a passphrase: the first line of a file or descriptor, UTF-8, without its line end."""
    from vault import passphrase_secret

    try:
        with open(source, "rb") as stream:  # noqa: PTH123 - a descriptor has no Path
            data = stream.read(MAX_PASSPHRASE + 1)
    except OSError as error:
        where = f"descriptor {source}" if isinstance(source, int) else str(source)
        raise UsageError(
            f"the passphrase cannot be read from {where}: {os.strerror(error.errno or 0)}"
        ) from error
    if len(data) > MAX_PASSPHRASE:
        raise UsageError(f"the passphrase is longer than {MAX_PASSPHRASE} bytes")
    try:
        text = data.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the passphrase is not valid UTF-8") from None
    return passphrase_secret(text)
