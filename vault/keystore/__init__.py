"""Where a vault's key is kept: the operating system's keyring, chosen from a fixed list.

| number | key store | back end |
|---|---|---|
| 0 | memory, for tests | `vault.keystore.memory`, never found or opened by number |
| 1 | macOS Keychain | keyring |
| 2 | Windows Credential Manager | keyring |
| 3 | Secret Service | keyring with secretstorage |
| 4 | Secret Service | keyring with libsecret |
| 5 | KWallet | keyring with dbus-python |
| 6 | Linux kernel keyring | `vault.keystore.kernel`: RAM only, for `--ephemeral`, never found |

The list is all there is: no environment variable and no configuration file of the keyring
library adds to it or chooses from it.
"""

from typing import Protocol

from vault.errors import KeyStoreAbsentError, UnsupportedFormatError

__all__ = ["KeyStore", "find_keystore", "keystore_by_number", "keystore_name"]

MEMORY = 0
KERNEL = 6
KERNEL_NAME = "Linux kernel keyring"


class KeyStore(Protocol):
    """Keep small secrets by name. The seam: `vault.keystore.memory` is the shipped fake.

    Every call may raise KeyStoreLockedError (it is there, and locked or dismissed),
    KeyStoreAbsentError (it is not there) or KeyStoreBrokenError (it answers wrongly, or not in
    time), and BadValueError for an `entry` that `vault.keystore.entry` does not name.
    """

    @property
    def number(self) -> int:
        """Return the number that a key slot stores for this kind of key store."""
        ...

    @property
    def name(self) -> str:
        """Return the name for people."""
        ...

    def get(self, entry: str) -> bytes | None:
        """Return the value of `entry`, or None if the store is open and holds none."""
        ...

    def set(self, entry: str, value: bytes) -> None:
        """Store `value`, 1 to 512 bytes; returns after it was read back and compared."""
        ...

    def delete(self, entry: str) -> None:
        """Remove `entry` if it is there; returns after it was seen to be gone."""
        ...


def find_keystore() -> KeyStore:
    """Return this system's secure key store that is there, and open or able to ask to be.

    Raises KeyStoreAbsentError whose hint lists the choices in words. One that is locked or broken
    raises its own error: no other key store stands in for it, since keys would scatter. Never
    makes a new keyring or opens a window; a later `set` or `get` opens one where there is a
    display.
    """
    from vault.keystore.allowlist import back_ends_here
    from vault.keystore.system import SystemKeyStore

    reasons: dict[str, None] = {}  # each once, in order: one missing bus fails several
    for back_end in back_ends_here():
        store = SystemKeyStore(back_end)
        try:
            store.probe()
        except KeyStoreAbsentError as error:
            reasons[str(error)] = None
        else:
            return store
    detail = f": {'; '.join(reasons)}" if reasons else ""
    raise KeyStoreAbsentError(
        f"this machine has no secure key store that safelight can use{detail}",
        hint="Choose: protect the vault with a passphrase (--passphrase-file FILE), or make an "
        "ephemeral one whose keys live in memory until reboot (--ephemeral), or start and unlock "
        "a Secret Service such as GNOME Keyring, KeePassXC or KWallet and try again.",
    )


def keystore_by_number(number: int, *, windows: bool = True) -> KeyStore:
    """Return the key store that a key slot names, if it is there.

    windows: whether it may ask a person to unlock it; else a locked one raises when it is used.
    Raises UnsupportedFormatError for a number outside the table, and KeyStoreAbsentError that
    explains where the key lies when this machine has no such store. A locked one is returned:
    it answers for itself when it is asked.
    """
    from dataclasses import replace

    from vault.keystore.allowlist import back_end_numbered
    from vault.keystore.system import SystemKeyStore, TimeLimits

    name = keystore_name(number)
    if number == MEMORY:
        raise KeyStoreAbsentError(
            "this vault's key was kept in the memory of a test, which has ended",
            hint="Open the vault with its recovery phrase or passphrase.",
        )
    if number == KERNEL:
        from vault.keystore.kernel import KernelKeyStore

        return KernelKeyStore()
    limits = TimeLimits.here() if windows else replace(TimeLimits.here(), prompt=0.0)
    store = SystemKeyStore(back_end_numbered(number), limits)
    try:
        store.probe(may_be_locked=True)
    except KeyStoreAbsentError as error:
        raise KeyStoreAbsentError(
            f"this vault's key lies in {name}, which is not there: {error}",
            hint="Open it where that key store is, or with the recovery phrase or passphrase.",
        ) from None
    return store


def keystore_name(number: int) -> str:
    """Name the key store `number` for people, without asking it anything.

    Raises UnsupportedFormatError for a number outside the table.
    """
    from vault.keystore.allowlist import ALLOW_LIST
    from vault.keystore.memory import MemoryKeyStore

    names = {MEMORY: MemoryKeyStore.name, KERNEL: KERNEL_NAME}
    names |= {back_end.number: back_end.name for back_end in ALLOW_LIST}
    if number not in names:
        raise UnsupportedFormatError(
            f"the vault names key store {number}, which this version does not know",
            hint="Open it with the version of safelight that wrote it, or a newer one.",
        )
    return names[number]
