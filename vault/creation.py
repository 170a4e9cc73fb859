"""Make a vault: exclusive lock, state, phrase confirmed, KEK kept, then one transaction.

An index without slots is an unfinished creation. The next one goes on with the same vault id and
the same key store entry, so twenty racing processes make one vault and one key.
"""

import os
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from vault.anchor import Anchor
from vault.errors import BadValueError, DamagedError
from vault.index import Index, StateRow
from vault.kek import keep_kek
from vault.keystore import KeyStore
from vault.keystore.entry import kek_entry
from vault.keytree import Root, root_tag, seal_root
from vault.layout import Layout, refuse_network
from vault.lock import VaultLock
from vault.notes import encode_notes
from vault.openers import Openers, passphrase_key
from vault.phrase import RecoveryPhrase
from vault.sealing import KEY_BYTES
from vault.secret import Secret
from vault.slots import (
    ENTRY_BYTES,
    SlotType,
    open_hpke_slot,
    open_keyring_slot,
    slots_digest,
)
from vault.unlock import KeyStoreUnlock, PassphraseUnlock
from vault.vault import Vault, open_vault

__all__ = ["EPHEMERAL", "Confirm", "create"]

EPHEMERAL = 6  # key store number of the kernel keyring: keys gone at reboot, so no phrase either
FIRST_EPOCH = 1

Confirm = Callable[[RecoveryPhrase], None]


class _Holders(NamedTuple):
    """Who will be able to open the vault."""

    keystore: KeyStore | None
    passphrase: Secret | None
    phrase: RecoveryPhrase | None


def create(
    path: str | PathLike[str],
    *,
    keystore: KeyStore | None,
    passphrase: Secret | None = None,
    confirm: Confirm | None = None,
    clock: Callable[[], float] = time.time,
    allow_network: bool = False,
) -> Vault:
    """Make a vault in a new or empty folder and return it open.

    keystore and/or passphrase open it; `confirm` shows the recovery phrase to the person before
    any key is kept, and raises to give up (nothing is lost, the next `create` goes on). Only an
    ephemeral vault has no phrase and may go without `confirm`. clock: seconds since 1970.

    Raises BadValueError when a vault exists there or no opener was chosen, KeyStoreError,
    StorageError.
    """
    ephemeral = keystore is not None and keystore.number == EPHEMERAL
    if keystore is None and passphrase is None:
        raise BadValueError("a vault needs a key store or a passphrase")
    if confirm is None and not ephemeral:
        raise BadValueError("a vault needs a recovery phrase, and nobody is there to confirm it")
    layout = Layout(Path(path))
    layout.claim()
    if not allow_network:
        refuse_network(layout.root)
    lock = VaultLock(layout.lock)
    try:
        with lock.exclusive():
            vault_id = layout.prepare(os.urandom(16))
            index = Index(layout.index, fresh=True)
            try:
                entry = _begin(index, vault_id, keystore)
                phrase = None
                if not ephemeral and confirm is not None:
                    phrase = RecoveryPhrase.generate(vault_id)
                    confirm(phrase)
                holders = _Holders(keystore, passphrase, phrase)
                # A clock that leaps later has this moment to be compared with.
                notes = encode_notes({"clock": int(clock())})
                tag = _finish(index, vault_id, entry, holders, notes)
                Anchor(keystore, vault_id, clock).move((FIRST_EPOCH, 1), tag)
            finally:
                index.close()
    finally:
        lock.close()
    unlock = KeyStoreUnlock(keystore) if passphrase is None else PassphraseUnlock(passphrase)
    if keystore is not None:
        unlock = KeyStoreUnlock(keystore)
    return open_vault(path, unlock, clock=clock, allow_network=allow_network)


def _begin(index: Index, vault_id: bytes, keystore: KeyStore | None) -> bytes:
    """Commit the state row, or take up that of an unfinished creation; return the entry name."""
    with index.writing():
        state = index.state()
        if state is not None and (index.slots() or state.generation):
            raise BadValueError("a vault exists there already", hint="Open it, or choose a folder.")
        if state is not None and state.vault_id != vault_id:
            raise DamagedError("the unfinished vault's parts do not belong together")
        entry = index.creation_entry() or os.urandom(ENTRY_BYTES)
        index.put_creation(None if keystore is None else keystore.number, entry)
        index.put_state(StateRow(vault_id, FIRST_EPOCH, 0))
    return entry


def _finish(index: Index, vault_id: bytes, entry: bytes, holders: _Holders, notes: bytes) -> bytes:
    """Keep the KEK, then commit slots and root: the vault exists. Return the root's tag."""
    from vault import hpke

    root_key = os.urandom(KEY_BYTES)
    at = (vault_id, FIRST_EPOCH)
    kek = None
    if holders.keystore is not None:
        place = (holders.keystore.number, entry)
        kek = place, keep_kek(holders.keystore, kek_entry(vault_id, entry))
    phrase = holders.phrase.secret() if holders.phrase is not None else None
    openers = Openers(
        keystore=holders.keystore,
        phrase=None if phrase is None else hpke.public_key(phrase),
        passphrase=None if holders.passphrase is None else passphrase_key(holders.passphrase),
    )
    rows, keys = openers.seal(root_key, at, kek)
    for row in rows:  # what a slip in memory spoiled must not be what the vault hangs on
        if row.type == SlotType.KEYRING and kek is not None:
            _refuse_other(open_keyring_slot(row, kek[1], at), root_key)
        elif row.type == SlotType.PHRASE and phrase is not None:
            _refuse_other(open_hpke_slot(row, phrase, at), root_key)
    root = Root(slots_digest=slots_digest(rows), slot_keys=keys, settings=notes)
    sealed = seal_root(root_key, vault_id, (FIRST_EPOCH, 1), root)
    with index.writing():
        index.put_slots(rows)
        index.put_root(sealed)
        index.put_state(StateRow(vault_id, FIRST_EPOCH, 1))
        index.clear_creation()
    return root_tag(sealed)


def _refuse_other(opened: bytes | None, root_key: bytes) -> None:
    if opened != root_key:
        raise DamagedError("a fresh key slot does not open", hint="Test the memory.")
