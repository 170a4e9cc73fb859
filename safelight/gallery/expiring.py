"""What deletes itself: the vault's retention policy, applied once after unlocking, in a thread."""

import threading
from typing import TYPE_CHECKING

from safelight.labels import Labels

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = ["Expiring"]


class Expiring:
    """One run of the policy; favourites stay. waiting: why nothing deleted itself, or nothing."""

    def __init__(self, vault: "Vault") -> None:
        self.waiting = ""
        self._vault = vault
        self._thread = threading.Thread(target=self._run, name="expiring", daemon=True)

    def start(self) -> None:
        """Begin; a lock ends it between two steps, and the next unlocking goes on."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until it is done, at most so many seconds; say whether it is."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        from vault import VaultError

        if self._vault.read_only:
            return
        try:
            self.waiting = self._vault.expire(_is_favourite).waiting
        except VaultError as error:
            self.waiting = str(error)


def _is_favourite(record: "Record") -> bool:
    return Labels.of(record.metadata).favourite is True
