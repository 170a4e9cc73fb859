"""The vault's errors: what happened, in one sentence, and what to do about it.

`VaultError` is the root; the leaves under each branch share one exit status in the application
(CONTRACT: 2 usage, 3 locked or no key, 4 damaged or tampered, 5 not found, 8 storage).
No message ever holds a prompt, a key, a passphrase or a phrase.

    VaultError
      BadValueError              a value that the caller gave is not acceptable
      LockedError                no key opened the vault
        NoKeyError               the key store answers, and has no entry for this vault
        WrongPassphraseError
        PhraseError              mistyped, or of another vault (two messages)
        KeyStoreError            the key store itself
          KeyStoreLockedError    it is there and locked, or the prompt was dismissed
          KeyStoreAbsentError    there is none (server, container, WSL)
          KeyStoreBrokenError    it answers wrongly, or not in time
      DamagedError               bytes that do not open: damaged, tampered with, or replayed
        UnsupportedFormatError   a format or suite that this version does not know
      NotFoundError              no such vault, record or blob
      StorageError               the file system refused: full, read-only, not ours
"""

__all__ = [
    "BadValueError",
    "DamagedError",
    "KeyStoreAbsentError",
    "KeyStoreBrokenError",
    "KeyStoreError",
    "KeyStoreLockedError",
    "LockedError",
    "NoKeyError",
    "NotFoundError",
    "PhraseError",
    "StorageError",
    "UnsupportedFormatError",
    "VaultError",
    "WrongPassphraseError",
]


class VaultError(Exception):
    """Root of the vault's errors. `hint` says what to do, in one sentence, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadValueError(VaultError):
    """A value that the caller gave is not acceptable."""


class LockedError(VaultError):
    """No key opened the vault."""


class NoKeyError(LockedError):
    """The key store answers, and has no entry for this vault."""


class WrongPassphraseError(LockedError):
    """The passphrase does not open this vault."""


class PhraseError(LockedError):
    """The recovery phrase is mistyped, or belongs to another vault."""


class KeyStoreError(LockedError):
    """The key store could not be used."""


class KeyStoreLockedError(KeyStoreError):
    """The key store is locked, or its prompt was dismissed."""


class KeyStoreAbsentError(KeyStoreError):
    """There is no secure key store on this machine."""


class KeyStoreBrokenError(KeyStoreError):
    """The key store answered wrongly, or not in time."""


class DamagedError(VaultError):
    """Bytes that do not open: damaged, tampered with, or replayed."""


class UnsupportedFormatError(DamagedError):
    """A format or suite that this version does not know; nothing was written."""


class NotFoundError(VaultError):
    """No such vault, record or blob."""


class StorageError(VaultError):
    """The file system refused: full, read-only, not ours."""
