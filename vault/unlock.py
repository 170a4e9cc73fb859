"""The ways to unlock a vault, and the openers that keep one at hand while it is open.

After an epoch change (purge, rotation, a new slot) an open vault asks its opener again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vault.errors import (
    BadValueError,
    DamagedError,
    KeyStoreAbsentError,
    LockedError,
    NoKeyError,
    WrongPassphraseError,
)
from vault.index import SlotRow
from vault.keystore import KeyStore, keystore_by_number, keystore_name
from vault.keystore.entry import kek_entry
from vault.secret import Secret, wipe
from vault.slots import (
    SlotType,
    keyring_fields,
    open_both_slot,
    open_hpke_slot,
    open_keyring_slot,
    passphrase_parameters,
)

__all__ = [
    "BothUnlock",
    "KeyStoreUnlock",
    "Opener",
    "PassphraseUnlock",
    "PhraseUnlock",
    "Unlock",
    "opener_for",
]


@dataclass(frozen=True)
class KeyStoreUnlock:
    """Unlock with the operating system's key store; None: the one that the slot names."""

    keystore: KeyStore | None = None


@dataclass(frozen=True)
class PassphraseUnlock:
    """Unlock with the passphrase (`vault.passphrase.passphrase_secret`)."""

    secret: Secret


@dataclass(frozen=True)
class PhraseUnlock:
    """Unlock with the recovery phrase as it was typed."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class BothUnlock:
    """Unlock a vault in passphrase mode: with the passphrase and the key store together.

    keystore None: the one that the slot names.
    """

    secret: Secret
    keystore: KeyStore | None = None


Unlock = KeyStoreUnlock | PassphraseUnlock | PhraseUnlock | BothUnlock


class Opener(Protocol):
    """Opens the root key from the slots of any epoch."""

    slot_type: SlotType
    keystore: KeyStore | None

    def root_key(self, slots: Sequence[SlotRow], epoch: int) -> tuple[bytes, SlotRow]:
        """Return the root key and the slot that gave it; raises LockedError or DamagedError."""
        ...

    def public(self) -> bytes | None:
        """Return the HPKE public key that the root must name for this slot, or None."""
        ...

    def forget(self) -> None:
        """Overwrite what it holds; it opens nothing any more."""
        ...


def opener_for(unlock: Unlock, vault_id: bytes) -> Opener:
    """Return the opener of an unlock; raises PhraseError for a phrase of another shape or vault."""
    match unlock:
        case KeyStoreUnlock(keystore=keystore):
            return _KeyStoreOpener(vault_id, keystore)
        case PassphraseUnlock(secret=secret):
            return _PassphraseOpener(vault_id, secret)
        case BothUnlock(secret=secret, keystore=keystore):
            return _BothOpener(vault_id, secret, keystore)
        case PhraseUnlock(text=text):
            from vault.phrase import RecoveryPhrase

            return _PhraseOpener(vault_id, RecoveryPhrase.parse(text, vault_id).secret())


class _KeyStoreOpener:
    slot_type = SlotType.KEYRING

    def __init__(self, vault_id: bytes, keystore: KeyStore | None) -> None:
        self._vault_id = vault_id
        self.keystore = keystore

    def root_key(self, slots: Sequence[SlotRow], epoch: int) -> tuple[bytes, SlotRow]:
        row = _slot_of(slots, self.slot_type)
        self.keystore, kek = _kek_of(row, slots, self._vault_id, self.keystore)
        return open_keyring_slot(row, kek, (self._vault_id, epoch)), row

    def public(self) -> bytes | None:
        return None

    def forget(self) -> None:
        """Nothing: the KEK stays in the key store, and is fetched for each epoch."""


class _HpkeOpener:
    """What phrase and passphrase share: a secret that HPKE opens with."""

    keystore: KeyStore | None = None

    def __init__(self, vault_id: bytes) -> None:
        self._vault_id = vault_id
        self._secret = bytearray()

    def public(self) -> bytes | None:
        from vault import hpke

        if not self._secret:
            raise BadValueError("nothing was unlocked yet")
        return hpke.public_key(bytes(self._secret))

    def forget(self) -> None:
        """Overwrite the secret that opens the slot."""
        wipe(self._secret)


class _PhraseOpener(_HpkeOpener):
    slot_type = SlotType.PHRASE

    def __init__(self, vault_id: bytes, secret: bytes) -> None:
        super().__init__(vault_id)
        self._secret = bytearray(secret)

    def root_key(self, slots: Sequence[SlotRow], epoch: int) -> tuple[bytes, SlotRow]:
        row = _slot_of(slots, self.slot_type)
        root_key = open_hpke_slot(row, bytes(self._secret), (self._vault_id, epoch))
        if root_key is None:
            raise DamagedError(
                "the recovery phrase is well formed and does not open this vault",
                hint="The vault was tampered with or damaged, or a newer phrase replaced this one.",
            )
        return root_key, row


class _PassphraseOpener(_HpkeOpener):
    slot_type = SlotType.PASSPHRASE

    def __init__(self, vault_id: bytes, passphrase: Secret) -> None:
        super().__init__(vault_id)
        self._passphrase = Secret(passphrase.reveal())  # its own, to be overwritten at the end
        self._parameters: bytes | None = None

    def root_key(self, slots: Sequence[SlotRow], epoch: int) -> tuple[bytes, SlotRow]:
        row = _slot_of(slots, self.slot_type)
        root_key = self._open(row, self._derived(row), epoch, slots)
        if root_key is None:
            raise WrongPassphraseError(
                "the passphrase does not open this vault",
                hint="Try again; if you are sure of it, the vault was changed: use the phrase.",
            )
        return root_key, row

    def _derived(self, row: SlotRow) -> bytes:
        """Return the passphrase's secret; kept, since Argon2 is slow, while its salt stays."""
        from vault.passphrase import Argon2Parameters, derive

        encoded = passphrase_parameters(row)
        if encoded != self._parameters:
            secret = derive(self._passphrase, Argon2Parameters.decode(encoded))
            self._secret = bytearray(secret)
            self._parameters = encoded
        return bytes(self._secret)

    def forget(self) -> None:
        """Overwrite the derived secret, and its own copy of the passphrase."""
        super().forget()
        self._passphrase.wipe()

    def _open(
        self, row: SlotRow, secret: bytes, epoch: int, slots: Sequence[SlotRow]
    ) -> bytes | None:
        del slots
        return open_hpke_slot(row, secret, (self._vault_id, epoch))


class _BothOpener(_PassphraseOpener):
    slot_type = SlotType.KEYRING_AND_PASSPHRASE

    def __init__(self, vault_id: bytes, passphrase: Secret, keystore: KeyStore | None) -> None:
        super().__init__(vault_id, passphrase)
        self.keystore = keystore

    def _open(
        self, row: SlotRow, secret: bytes, epoch: int, slots: Sequence[SlotRow]
    ) -> bytes | None:
        self.keystore, kek = _kek_of(row, slots, self._vault_id, self.keystore)
        return open_both_slot(row, kek, secret, (self._vault_id, epoch))


def _kek_of(
    row: SlotRow, slots: Sequence[SlotRow], vault_id: bytes, keystore: KeyStore | None
) -> tuple[KeyStore, bytes]:
    """Return the key store that a slot names, and the KEK that it holds; raises LockedError."""
    number, entry = keyring_fields(row)
    if keystore is None:
        keystore = keystore_by_number(number)
    if keystore.number != number:
        raise KeyStoreAbsentError(
            f"this vault's key is kept in {keystore_name(number)}, and {keystore.name} was asked",
            hint="Nothing was changed. Open it with the recovery phrase, or where it was made.",
        )
    kek = keystore.get(kek_entry(vault_id, entry))
    if kek is None:
        raise NoKeyError(f"{keystore.name} holds no key for this vault", hint=_other_ways(slots))
    return keystore, kek


def _other_ways(slots: Sequence[SlotRow]) -> str:
    """Say what opens a vault whose key store entry is gone."""
    others = {row.type for row in slots} - {SlotType.KEYRING, SlotType.KEYRING_AND_PASSPHRASE}
    if not others:
        return "It was ephemeral: its keys lived in memory only, and nothing else opens it."
    if SlotType.PASSPHRASE in others:
        return "Open it with the passphrase or the recovery phrase."
    return "Open it with the recovery phrase: the key was removed, or this is a copy."


def _slot_of(slots: Sequence[SlotRow], slot_type: SlotType) -> SlotRow:
    found = [row for row in slots if row.type == slot_type]
    if len(found) == 1:
        return found[0]
    words = {
        SlotType.KEYRING: "key store entry",
        SlotType.PHRASE: "recovery phrase",
        SlotType.PASSPHRASE: "passphrase",
        SlotType.KEYRING_AND_PASSPHRASE: "key store entry and passphrase together",
    }
    if found:
        raise DamagedError(f"this vault has {len(found)} slots for a {words[slot_type]}")
    known = [words[SlotType(row.type)] for row in slots if row.type in words]
    raise LockedError(
        f"this vault has no {words[slot_type]}",
        hint=f"It opens with: {', '.join(known)}." if known else "It has no key slot at all.",
    )
