"""Keep a fresh KEK in a key store, and be sure that it is kept."""

import os

from vault.errors import KeyStoreBrokenError
from vault.keystore import KeyStore
from vault.sealing import KEY_BYTES

__all__ = ["keep_kek"]


def keep_kek(keystore: KeyStore, entry: str) -> bytes:
    """Return the KEK that an unfinished attempt left under `entry`, or a new one, seen to be kept.

    An entry is never written twice. Raises KeyStoreError.
    """
    kek = keystore.get(entry)
    if kek is None:
        kek = os.urandom(KEY_BYTES)
        keystore.set(entry, kek)
        if keystore.get(entry) != kek:
            raise KeyStoreBrokenError(f"{keystore.name} took a key and does not give it back")
    if len(kek) != KEY_BYTES:
        raise KeyStoreBrokenError(f"{keystore.name} holds something else under this vault's entry")
    return kek
