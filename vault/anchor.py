"""Remember in the key store how far the vault was, so that an old copy of the folder is noticed.

The anchor warns and never locks out: a restored backup is an old copy too.
"""

import struct
from collections.abc import Callable

from vault.errors import KeyStoreError
from vault.keystore import KeyStore
from vault.keystore.entry import anchor_entry

__all__ = ["Anchor"]

_ANCHOR = struct.Struct(">QQ16s")  # epoch, generation, tag of the sealed root
_EVERY_SECONDS = 15 * 60


class Anchor:
    """The anchor entry of one vault, or nothing where no key store is at hand.

    `warning` says what `check` found, or is empty. clock: seconds since 1970.
    """

    def __init__(
        self, keystore: KeyStore | None, vault_id: bytes, clock: Callable[[], float]
    ) -> None:
        self.warning = ""
        self.is_old_copy = False
        self._keystore = keystore
        self._entry = anchor_entry(vault_id)
        self._clock = clock
        self._known: tuple[int, int] | None = None  # what the key store holds, as far as we know
        self._moved = clock()

    def check(self, at: tuple[int, int], tag: bytes, *, optional: bool = False) -> None:
        """Compare the vault's (epoch, generation) and root tag with the anchor.

        optional: something else opened the vault, so a key store that does not answer is no news.
        """
        if self._keystore is None:
            return
        try:
            value = self._keystore.get(self._entry)
        except KeyStoreError as error:
            if optional:
                self._keystore = None
                return
            self.warning = f"the key store did not say whether this is an old copy: {error}"
            return
        if value is None:
            return
        if len(value) != _ANCHOR.size:
            self.warning = "the key store's note about this vault is unreadable"
            return
        epoch, generation, known_tag = _ANCHOR.unpack(value)
        self._known = (epoch, generation)
        if at < self._known:
            self.warning = (
                f"this is an older copy of the vault: it is at {at[0]}.{at[1]}, "
                f"and was at {epoch}.{generation}"
            )
        elif at == self._known and tag != known_tag:
            self.warning = "this vault and the one last used here have parted: two copies changed"
        self.is_old_copy = bool(self.warning)

    def is_due(self) -> bool:
        """Say whether the anchor was last moved 15 minutes ago or more."""
        return self._clock() - self._moved >= _EVERY_SECONDS

    def move(self, at: tuple[int, int], tag: bytes) -> None:
        """Move the anchor if the vault went on; never backwards.

        A key store that refuses is no error here: what was saved is saved, and an anchor that
        stays behind only warns less. Two processes may move it in either order, likewise.
        """
        self._moved = self._clock()
        if self._known is not None and at <= self._known:
            return
        try:
            self.reset(at, tag)
        except KeyStoreError:
            return

    def reset(self, at: tuple[int, int], tag: bytes) -> None:
        """Write the anchor wherever it was: the person confirmed. Raises KeyStoreError."""
        if self._keystore is None:
            return
        self._keystore.set(self._entry, _ANCHOR.pack(*at, tag))
        self._known = at
        self.warning = ""
        self.is_old_copy = False
