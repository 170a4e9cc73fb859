"""Hold an open vault for one process: lock, index, folders, key tree, anchor, and their order.

The facade and every larger job (deleting, purging, backup, verify) work through one `Session`.
"""

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

from vault.anchor import Anchor
from vault.blobs import BlobStore
from vault.context import id_bytes
from vault.errors import BadValueError, KeyStoreError, LockedError, NotFoundError, StorageError
from vault.index import Index
from vault.keystore import KeyStore, keystore_by_number
from vault.layout import Layout, unfinished
from vault.ledger import Ledger
from vault.lock import VaultLock
from vault.sealed_record import Opened
from vault.slots import keyring_place
from vault.unlock import Opener

__all__ = ["Session"]


class Session:
    """One open vault. Every use of it lies inside `shared` or `exclusive`.

    Another thread waits for its turn; another process shares the lock or waits for it.
    """

    def __init__(
        self, layout: Layout, vault_id: bytes, opener: Opener, clock: Callable[[], float]
    ) -> None:
        """Open lock, index and folders and unlock. clock: seconds since 1970."""
        self.layout = layout
        self.opener = opener
        self.clock = clock
        # Also true for root on a read-only mount; permissions of others' folders end likewise.
        self.read_only = not os.access(layout.index, os.W_OK) or not os.access(layout.root, os.W_OK)
        self._guard = threading.RLock()
        self._pid = os.getpid()
        self._closed = ""  # why nothing can be done any more
        self._timer: threading.Timer | None = None
        self._idle_seconds = 0.0
        self._used = time.monotonic()
        with ExitStack() as stack:
            self._lock = VaultLock(layout.lock, read_only=self.read_only)
            stack.callback(self._lock.close)
            self.blobs = BlobStore(layout.root)
            stack.callback(self.blobs.close)
            with self._lock.exclusive_if_free() as alone:
                self.index = Index(layout.index, read_only=self.read_only)
                stack.callback(self.index.close)
                if alone:  # nobody writes: a journal is a dead writer's, and so is `incoming`
                    if self.index.hot:
                        self.index.quick_check()
                    self.blobs.sweep_incoming()
            self.ledger = Ledger(self.index, vault_id, opener)
            stack.callback(self.ledger.forget)
            stack.callback(opener.forget)
            with self._lock.shared():
                if self.index.is_unfinished():
                    raise unfinished()
                with self.ledger.reading():
                    keystore = self._anchor_keystore()
            self.anchor = Anchor(keystore, vault_id, clock)
            self.anchor.check(
                self.ledger.at, self.ledger.root_tag, optional=opener.keystore is None
            )
            self._resources = stack.pop_all()

    def _anchor_keystore(self) -> KeyStore | None:
        """Return where the anchor lies: also for a vault that phrase or passphrase opened."""
        if self.opener.keystore is not None:
            return self.opener.keystore
        place = keyring_place(self.index.slots())
        if place is None:
            return None
        try:
            return keystore_by_number(place[0], windows=False)
        except KeyStoreError:  # absent here: an anchor only ever warns
            return None

    @property
    def is_open(self) -> bool:
        """Say whether the keys are still there."""
        return not self._closed

    def close(self, why: str = "this vault is closed") -> None:
        """Move the anchor, close the files, forget the keys. Closing twice is allowed."""
        with self._guard:
            if self._closed:
                return
            self._closed = why
            if self._timer is not None:
                self._timer.cancel()
            with self._resources:
                if self._pid == os.getpid():
                    self.anchor.move(self.ledger.at, self.ledger.root_tag)

    def lock_after(self, seconds: float) -> None:
        """Close by itself when nothing was asked for so many seconds; 0 turns that off."""
        with self._guard:
            self._idle_seconds = seconds
            self._arm(seconds)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds > 0 and not self._closed:
            self._timer = threading.Timer(seconds, self._close_if_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_if_idle(self) -> None:
        with self._guard:
            left = self._used + self._idle_seconds - time.monotonic()
            if left > 0:
                self._arm(left)
            else:
                self.close(f"this vault locked itself after {self._idle_seconds:g} seconds of rest")

    @contextmanager
    def shared(self) -> Generator[None]:
        """Hold the vault for one operation: this thread, and the lock with other processes."""
        with self._guard:
            self._require_open()
            with self._lock.shared():
                yield
            self._used = time.monotonic()

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Hold the vault alone; waits up to a minute for other processes."""
        self.require_writable()
        with self._guard:
            self._require_open()
            with self._lock.exclusive():
                yield
            self._used = time.monotonic()

    @contextmanager
    def exclusive_if_free(self) -> Generator[bool]:
        """Hold the vault alone if no other process uses it; yields whether that is so."""
        with self._guard:
            self._require_open()
            with self._lock.exclusive_if_free() as alone:
                yield alone

    def _require_open(self) -> None:
        if self._closed:
            idle = "locked itself" in self._closed
            raise (LockedError if idle else BadValueError)(self._closed, hint="Open it again.")
        if self._pid != os.getpid():
            raise BadValueError("a vault cannot be used after a fork; open it again there")

    def require_writable(self) -> None:
        """Raise StorageError when the vault lies on read-only media."""
        if self.read_only:
            raise StorageError(
                "this vault lies on read-only media: it can be read, and nothing can be changed",
                hint="Copy it to a writable disk with `vault restore`.",
            )

    def find(self, record_id: str) -> Opened:
        """Return a record of the current snapshot; raises NotFoundError for an unknown id."""
        opened = self.ledger.find(id_bytes(record_id))
        if opened is None:
            raise NotFoundError(f"there is no record {record_id}")
        return opened

    def anchor_in_time(self) -> None:
        """Move the anchor if that was not done for a quarter of an hour."""
        if self.anchor.is_due():
            self.move_anchor()

    def move_anchor(self) -> None:
        """Tell the key store how far the vault is now."""
        self.anchor.move(self.ledger.at, self.ledger.root_tag)
