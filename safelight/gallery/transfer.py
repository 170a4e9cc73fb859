"""What goes into the gallery's vault and out of it: one importer, and tickets for downloads."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safelight.sharing import Share

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from safelight.importing import Duplicate, Importer, Refused, Source, Taken
    from vault import Vault

__all__ = ["Leaving", "Transfer", "TransferHolder", "transfer_of"]

TICKETS = 32  # downloads that wait at once
LIFE = 60.0  # seconds in which a ticket is used


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaving:
    """Pictures that somebody asked to download: their ids, and how they leave."""

    ids: tuple[str, ...]
    share: Share = field(repr=False)


class Transfer:
    """One per open vault; all of it is gone with the lock. Safe from several threads.

    clock: seconds, monotonic.
    """

    def __init__(self, vault: "Vault", clock: Callable[[], float] = time.monotonic) -> None:
        self.vault = vault
        self._clock = clock
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._tickets: OrderedDict[str, tuple[Leaving, float]] = OrderedDict()
        self._importer: Importer | None = None

    def ticket(self, leaving: Leaving) -> str:
        """Give a ticket for one download: an address tells browsers' histories nothing else."""
        with self._guard:
            name = secrets.token_urlsafe(16)
            self._tickets[name] = leaving, self._clock() + LIFE
            while len(self._tickets) > TICKETS:
                self._tickets.popitem(last=False)
            return name

    def redeem(self, ticket: str) -> Leaving | None:
        """Give what a ticket stands for, once; None when it was used, is too old or none."""
        with self._guard:
            leaving, until = self._tickets.pop(ticket, (None, 0.0))
            return leaving if self._clock() < until else None

    def take_in(self, source: "Source") -> "Taken | Duplicate | Refused":
        """Seal one file and say what became of it, as `Importer.take` does."""
        from safelight.importing import Importer

        with self._turn:
            if self._importer is None:
                self._importer = Importer(self.vault)  # which reads the whole vault once
            *_, outcome = self._importer.take([source])
            return outcome

    def close(self) -> None:
        """Forget what waits."""
        with self._guard:
            self._tickets.clear()


class TransferHolder:
    """Makes the Transfer of an open vault once, and again after each lock."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._transfer: Transfer | None = None

    def get(self, gallery: "Gallery") -> Transfer:
        """Return what moves the open vault's pictures. Raises LockedError."""
        vault = gallery.vault
        with self._guard:
            if self._transfer is None or self._transfer.vault is not vault:
                self._transfer = Transfer(vault)
                gallery.on_lock(self._close)
            return self._transfer

    def _close(self) -> None:
        with self._guard:
            transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.close()


def transfer_of(gallery: "Gallery") -> Transfer:
    """Return what moves the gallery's pictures in and out. Raises LockedError."""
    return gallery.transfer.get(gallery)
