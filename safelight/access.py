"""Open the vault for a command: which key, asked where, and what to say when none fits."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.console import ask, is_interactive
from safelight.exits import UsageError
from safelight.settings import Settings

if TYPE_CHECKING:
    from vault import Secret, Vault, VaultSummary

__all__ = ["Access", "read_passphrase"]

MAX_PASSPHRASE = 4096  # bytes read from a file or descriptor


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Where the vault is, and what the command line offers to open it with.

    passphrase_fd: an open file descriptor, or -1 for none. It wins over the passphrase file.
    """

    settings: Settings
    passphrase_fd: int = -1

    def open(self) -> "Vault":
        """Open the vault with a given passphrase, else the pinned key store, else by asking."""
        from vault import PassphraseUnlock, open_vault

        path = self.settings.vault
        given = self.passphrase()
        if given is not None:
            return open_vault(path, PassphraseUnlock(given))
        return self._open_without(self.summary())

    def _open_without(self, summary: "VaultSummary") -> "Vault":
        from vault import (
            KeyStoreUnlock,
            LockedError,
            PassphraseUnlock,
            open_vault,
            passphrase_secret,
        )

        openers = {slot.type for slot in summary.slots}
        path = self.settings.vault
        if "keyring" in openers:
            try:
                return open_vault(path, KeyStoreUnlock())
            except LockedError:
                if not ("passphrase" in openers and is_interactive()):
                    raise
        elif not is_interactive():
            raise LockedError(
                "this vault opens with its passphrase, and none was given",
                hint="give --passphrase-file F, --passphrase-fd N or SAFELIGHT_PASSPHRASE_FILE",
            )
        return open_vault(
            path, PassphraseUnlock(passphrase_secret(ask("passphrase: ", secret=True)))
        )

    def summary(self) -> "VaultSummary":
        """Look at the vault without a key; raises NotFoundError where there is none."""
        from vault import NotFoundError, inspect

        summary = inspect(self.settings.vault)
        if summary.state != "ready":
            raise NotFoundError(
                f"there is no vault at {self.settings.vault}", hint="`safelight init` makes one"
            )
        return summary

    def passphrase(self) -> "Secret | None":
        """Read the passphrase from the descriptor or file that was named, or give None."""
        if self.passphrase_fd >= 0:
            return read_passphrase(self.passphrase_fd)
        file = self.settings["passphrase_file"]
        return read_passphrase(Path(file).expanduser()) if file else None


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
