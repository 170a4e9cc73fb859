"""Seal and keep records: bytes and metadata in, sealed bytes on the disk, and back.

FORMAT.md beside this file is the format; `vault.errors` draws what can go wrong. Names resolve
when they are used first, so `import vault` loads neither cryptography nor sqlite3 nor keyring.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vault.context import Kind
    from vault.creation import create
    from vault.deletion import Receipt
    from vault.errors import (
        BadValueError,
        DamagedError,
        KeyStoreAbsentError,
        KeyStoreBrokenError,
        KeyStoreError,
        KeyStoreLockedError,
        LockedError,
        NoKeyError,
        NotFoundError,
        PhraseError,
        StorageError,
        UnsupportedFormatError,
        VaultError,
        WrongPassphraseError,
    )
    from vault.keys import Keys, Strict
    from vault.keystore import KeyStore, find_keystore
    from vault.keystore.kernel import KernelKeyStore
    from vault.keystore.memory import MemoryKeyStore
    from vault.passphrase import passphrase_secret
    from vault.phrase import RecoveryPhrase
    from vault.records import Blob, BlobDraft, Draft, Record
    from vault.retention import Expiry, Retention
    from vault.secret import Secret
    from vault.status import SlotStatus, VaultStatus, VaultSummary, inspect
    from vault.unlock import BothUnlock, KeyStoreUnlock, PassphraseUnlock, PhraseUnlock, Unlock
    from vault.vault import Vault, open_vault

__all__ = [
    "BadValueError",
    "Blob",
    "BlobDraft",
    "BothUnlock",
    "DamagedError",
    "Draft",
    "Expiry",
    "KernelKeyStore",
    "KeyStore",
    "KeyStoreAbsentError",
    "KeyStoreBrokenError",
    "KeyStoreError",
    "KeyStoreLockedError",
    "KeyStoreUnlock",
    "Keys",
    "Kind",
    "LockedError",
    "MemoryKeyStore",
    "NoKeyError",
    "NotFoundError",
    "PassphraseUnlock",
    "PhraseError",
    "PhraseUnlock",
    "Receipt",
    "Record",
    "RecoveryPhrase",
    "Retention",
    "Secret",
    "SlotStatus",
    "StorageError",
    "Strict",
    "Unlock",
    "UnsupportedFormatError",
    "Vault",
    "VaultError",
    "VaultStatus",
    "VaultSummary",
    "WrongPassphraseError",
    "create",
    "find_keystore",
    "inspect",
    "open_vault",
    "passphrase_secret",
]

_HOMES = {
    "BadValueError": "errors",
    "Blob": "records",
    "BlobDraft": "records",
    "BothUnlock": "unlock",
    "DamagedError": "errors",
    "Draft": "records",
    "Expiry": "retention",
    "KernelKeyStore": "keystore.kernel",
    "KeyStore": "keystore",
    "KeyStoreAbsentError": "errors",
    "KeyStoreBrokenError": "errors",
    "KeyStoreError": "errors",
    "KeyStoreLockedError": "errors",
    "KeyStoreUnlock": "unlock",
    "Keys": "keys",
    "Kind": "context",
    "LockedError": "errors",
    "MemoryKeyStore": "keystore.memory",
    "NoKeyError": "errors",
    "NotFoundError": "errors",
    "PassphraseUnlock": "unlock",
    "PhraseError": "errors",
    "PhraseUnlock": "unlock",
    "Receipt": "deletion",
    "Record": "records",
    "RecoveryPhrase": "phrase",
    "Retention": "retention",
    "Secret": "secret",
    "SlotStatus": "status",
    "StorageError": "errors",
    "Strict": "keys",
    "Unlock": "unlock",
    "UnsupportedFormatError": "errors",
    "Vault": "vault",
    "VaultError": "errors",
    "VaultStatus": "status",
    "VaultSummary": "status",
    "WrongPassphraseError": "errors",
    "create": "creation",
    "find_keystore": "keystore",
    "inspect": "status",
    "open_vault": "vault",
    "passphrase_secret": "passphrase",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vault' has no attribute {name!r}")
    return getattr(import_module(f"vault.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
