"""The gallery's one state: the vault open or locked, who may talk to it, when it was used last."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from safelight.gallery.attempts import Attempts
from safelight.gallery.making import MakingHolder
from safelight.gallery.sessions import Sessions
from safelight.gallery.transfer import TransferHolder
from safelight.gallery.undo import Undo
from safelight.hardening import hide_memory
from safelight.settings import Settings
from vault import LockedError

if TYPE_CHECKING:
    from safelight.catalogue import Catalogue
    from safelight.gallery.creation import Creation
    from safelight.gallery.expiring import Expiring
    from vault import Secret, Unlock, Vault, VaultSummary

__all__ = ["Gallery"]

IDLE_MINUTES = 15.0


class Gallery:
    """What all pages share. Safe from several threads.

    settings: where the vault and the models are. idle_seconds: rest after which it locks itself; 0:
    never. needs_passphrase: the key store alone does not unlock (other machines can reach us).
    clock: seconds, monotonic. note: says one sentence to the person at the terminal.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        idle_seconds: float = IDLE_MINUTES * 60,
        needs_passphrase: bool = False,
        clock: Callable[[], float] = time.monotonic,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.sessions = Sessions()
        self.attempts = Attempts(clock)
        self.undo = Undo()
        self.transfer = TransferHolder()
        self.idle_seconds = idle_seconds
        self.needs_passphrase = needs_passphrase
        self.note = note
        self.hosts: frozenset[str] = frozenset()  # what `Host` may say; the server fills it in
        self.origin = ""  # our own, as browsers write it
        self.api_token = ""  # what programs show; empty: the drop-in APIs are off
        self.programs_model = ""  # what programs get that name no model; empty: the settings' one
        self.entered: Callable[[], None] = lambda: None  # a browser used the address up
        self.creation: Creation | None = None  # of the first run, while the phrase is shown
        self.making = MakingHolder(settings)
        self._clock = clock
        self._guard = threading.RLock()
        self._vault: Vault | None = None
        self._catalogue: Catalogue | None = None
        self.expiring: Expiring | None = None  # the run of the retention policy since unlocking
        self._closing: list[Callable[[], None]] = []
        self._summary: VaultSummary | None = None
        self._used = clock()

    @property
    def is_locked(self) -> bool:
        """Say whether the vault is locked, or not there."""
        return self._vault is None

    @property
    def vault(self) -> "Vault":
        """Return the open vault; raises LockedError."""
        vault = self._vault
        if vault is None:
            raise LockedError("the gallery is locked")
        return vault

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know of the open vault, such as that it is an old copy."""
        vault = self._vault
        return () if vault is None else vault.warnings

    @property
    def catalogue(self) -> "Catalogue":
        """Return the index of the open vault, which may still be filling; raises LockedError."""
        catalogue = self._catalogue
        if catalogue is None:
            raise LockedError("the gallery is locked")
        return catalogue

    def on_lock(self, close: Callable[[], None]) -> None:
        """Call `close` once, before the vault is closed: what holds plaintext forgets it then."""
        with self._guard:
            self._closing.append(close)

    def summary(self) -> "VaultSummary":
        """Look at the vault without a key; while it is open, as it was before.

        Another handle of this process on an open index would drop its locks.
        """
        from vault import inspect

        with self._guard:
            if self._summary is None or self._vault is None:
                self._summary = inspect(self.settings.vault)
            return self._summary

    def state(self) -> Literal["open", "locked", "absent"]:
        """Say whether the vault is open, locked, or not made yet."""
        with self._guard:
            if self._vault is not None:
                return "open"
            return "locked" if self.summary().state == "ready" else "absent"

    def unlock(self, passphrase: "Secret | None") -> None:
        """Open the vault with a passphrase, or without one by the key store that it names.

        Raises LockedError and its kinds when that does not fit, and what the vault raises.
        """
        from vault import BothUnlock, KeyStoreUnlock, PassphraseUnlock, open_vault

        hide_memory()
        with self._guard:
            if self._vault is not None:
                return
            openers = {slot.type for slot in self.summary().slots}
            unlock: Unlock
            if passphrase is not None:
                kind = BothUnlock if "both" in openers else PassphraseUnlock
                unlock = kind(passphrase)
            elif self.needs_passphrase or "keyring" not in openers:
                raise LockedError("this vault opens with its passphrase")
            else:
                unlock = KeyStoreUnlock()
            allow = self.settings["network_vault"] == "allow"
            self.adopt(open_vault(self.settings.vault, unlock, allow_network=allow))

    def adopt(self, vault: "Vault") -> None:
        """Take a vault that is open, for as long as the gallery is not locked."""
        from safelight.catalogue import Catalogue
        from safelight.gallery.expiring import Expiring

        with self._guard:
            self._vault, self._catalogue = vault, Catalogue(vault)
            self._catalogue.start()
            self.on_lock(self._catalogue.forget)
            self.expiring = Expiring(vault)
            self.expiring.start()
            self._used = self._clock()

    def lock(self) -> None:
        """Close the vault and forget everything that came out of it. Locking twice is allowed."""
        with self._guard:
            closing: Sequence[Callable[[], None]] = self._closing[::-1]
            self._closing = []
            vault, self._vault, self._catalogue = self._vault, None, None
            self.sessions.forget_views()
            self.undo.forget()
            for close in closing:
                close()
            if vault is not None:
                vault.close()
            creation, self.creation = self.creation, None
        if creation is not None:
            creation.give_up()

    def touch(self) -> None:
        """Note that a person used the gallery now."""
        self._used = self._clock()

    def idle_left(self) -> float:
        """Return the seconds of rest after which it would lock itself; infinite when never."""
        if self.idle_seconds <= 0:
            return float("inf")
        return self._used + self.idle_seconds - self._clock()

    def lock_if_idle(self) -> bool:
        """Lock when nobody used the gallery for long enough; say whether it was locked now."""
        if self.making.keeps_open:
            self.touch()  # somebody asked to wait for the queue
        if self.is_locked or self.idle_left() > 0:
            return False
        self.lock()
        return True
