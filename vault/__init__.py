"""Seal and keep records: bytes and metadata in, sealed bytes on the disk, and back.

FORMAT.md beside this file is the format; `vault.errors` draws what can go wrong. Names resolve
when they are used first, so `import vault` loads neither cryptography nor sqlite3 nor keyring.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vault.context import Kind
    from vault.creation import create
    from vault.records import Blob, BlobDraft, Draft, Record
    from vault.status import SlotStatus, VaultStatus, VaultSummary, inspect
    from vault.unlock import KeyStoreUnlock, PassphraseUnlock, PhraseUnlock, Unlock
    from vault.vault import Vault, open_vault

__all__ = [
    "Blob",
    "BlobDraft",
    "Draft",
    "KeyStoreUnlock",
    "Kind",
    "PassphraseUnlock",
    "PhraseUnlock",
    "Record",
    "SlotStatus",
    "Unlock",
    "Vault",
    "VaultStatus",
    "VaultSummary",
    "create",
    "inspect",
    "open_vault",
]

_HOMES = {
    "Blob": "records",
    "BlobDraft": "records",
    "Draft": "records",
    "KeyStoreUnlock": "unlock",
    "Kind": "context",
    "PassphraseUnlock": "unlock",
    "PhraseUnlock": "unlock",
    "Record": "records",
    "SlotStatus": "status",
    "Unlock": "unlock",
    "Vault": "vault",
    "VaultStatus": "status",
    "VaultSummary": "status",
    "create": "creation",
    "inspect": "status",
    "open_vault": "vault",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vault' has no attribute {name!r}")
    return getattr(import_module(f"vault.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
