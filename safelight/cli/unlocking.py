"""Choose what opens a vault that is not the usual one, or whose head is damaged."""

from pathlib import Path
from typing import TYPE_CHECKING

from safelight.access import Access, asked_passphrase, read_phrase
from safelight.hardening import hide_memory

if TYPE_CHECKING:
    from vault import Unlock

__all__ = ["unlock_for"]


def unlock_for(
    access: Access, path: Path, phrase_file: Path | None, *, ask_phrase: bool
) -> "Unlock":
    """Return what the command line offers to open the vault at `path` with.

    The recovery phrase if it is asked for, else a given passphrase, else the key store, else the
    passphrase that a person types. A folder whose head is damaged says nothing of its openers.
    """
    from vault import (
        BothUnlock,
        DamagedError,
        KeyStoreUnlock,
        PassphraseUnlock,
        PhraseUnlock,
        inspect,
    )

    hide_memory()
    if ask_phrase or phrase_file is not None:
        return PhraseUnlock(read_phrase(phrase_file))
    try:
        openers = {slot.type for slot in inspect(path).slots}
    except DamagedError:
        openers = set()
    given = access.passphrase_for(openers)
    if "both" in openers:
        return BothUnlock(given or asked_passphrase())
    if given is not None:
        return PassphraseUnlock(given)
    if "passphrase" in openers and "keyring" not in openers:
        return PassphraseUnlock(asked_passphrase())
    return KeyStoreUnlock()
