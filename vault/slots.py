"""Wrap the root key for those who may open the vault: key slots (FORMAT.md, 5).

Keyring slots are AES-256-GCM under the KEK. Phrase and passphrase slots are HPKE to a public key
that lies nowhere outside the sealed root, so nobody else can seal a root key to it.
"""

import hashlib
import struct
from collections.abc import Iterable
from enum import IntEnum

from vault.context import Kind, context
from vault.errors import DamagedError
from vault.index import SlotRow
from vault.sealing import KEY_BYTES, OVERHEAD_BYTES, open_small, seal_small

__all__ = [
    "ENTRY_BYTES",
    "PARAMETERS_BYTES",
    "SlotType",
    "keyring_fields",
    "keyring_place",
    "open_both_slot",
    "open_hpke_slot",
    "open_keyring_slot",
    "passphrase_parameters",
    "seal_both_slot",
    "seal_hpke_slot",
    "seal_keyring_slot",
    "slots_digest",
]

ENTRY_BYTES = 8  # the random end of a KEK's entry name, 16 hex digits
PARAMETERS_BYTES = 22  # Argon2 parameters before a passphrase slot's HPKE bytes
_KEYRING = struct.Struct(">H8s")  # key store number, entry
_DIGEST_ROW = struct.Struct(">BBI")  # number, type, length of the body
_HPKE_BYTES = 32 + KEY_BYTES + 16


class SlotType(IntEnum):
    """How a slot wraps the root key. Numbers are never given again."""

    KEYRING = 1
    PHRASE = 2
    PASSPHRASE = 3
    KEYRING_AND_PASSPHRASE = 4  # passphrase mode: both needed


def slots_digest(rows: Iterable[SlotRow]) -> bytes:
    """Return SHA-256 over the whole keyslot table, which the root vouches for."""
    digest = hashlib.sha256()
    for row in sorted(rows):
        digest.update(_DIGEST_ROW.pack(row.no, row.type, len(row.body)) + row.body)
    return digest.digest()


def seal_keyring_slot(
    no: int, kek: bytes, place: tuple[int, bytes], at: tuple[bytes, int], root_key: bytes
) -> SlotRow:
    """Wrap the root key under the KEK that lies at `place` = (key store number, entry).

    `at` is (vault id, epoch).
    """
    fields = _KEYRING.pack(*place)
    info = _slot_context(SlotType.KEYRING, no, fields, at)
    return SlotRow(no, SlotType.KEYRING, fields + seal_small(kek, info, root_key))


def keyring_fields(row: SlotRow) -> tuple[int, bytes]:
    """Return (key store number, entry) of a slot of type 1 or 4.

    Raises DamagedError for a wrong size.
    """
    alone = _KEYRING.size + OVERHEAD_BYTES + KEY_BYTES
    both = _KEYRING.size + PARAMETERS_BYTES + OVERHEAD_BYTES + _HPKE_BYTES
    if len(row.body) != (both if row.type == SlotType.KEYRING_AND_PASSPHRASE else alone):
        raise DamagedError("the keyring slot has a wrong size")
    number, entry = _KEYRING.unpack_from(row.body)
    return number, entry


def keyring_place(rows: Iterable[SlotRow]) -> tuple[int, bytes] | None:
    """Return (key store number, entry) of the KEK that the slots name, or None without one."""
    for row in rows:
        if row.type in {SlotType.KEYRING, SlotType.KEYRING_AND_PASSPHRASE}:
            return keyring_fields(row)
    return None


def open_keyring_slot(row: SlotRow, kek: bytes, at: tuple[bytes, int]) -> bytes:
    """Return the root key; raises DamagedError when slot and KEK do not belong together."""
    fields = _KEYRING.pack(*keyring_fields(row))
    info = _slot_context(SlotType.KEYRING, row.no, fields, at)
    if len(kek) != KEY_BYTES:
        raise DamagedError("the key store holds something else than this vault's key")
    return open_small(kek, info, row.body[_KEYRING.size :])


def seal_hpke_slot(
    row: tuple[int, SlotType, bytes], public: bytes, at: tuple[bytes, int], root_key: bytes
) -> SlotRow:
    """Wrap the root key to `public` as slot (number, type, leading parameters)."""
    from vault import hpke

    no, type_, parameters = row
    info = _slot_context(type_, no, b"", at)
    return SlotRow(no, type_, parameters + hpke.seal(public, info, root_key))


def open_hpke_slot(row: SlotRow, secret: bytes, at: tuple[bytes, int]) -> bytes | None:
    """Return the root key, or None when the secret does not open the slot."""
    from cryptography.exceptions import InvalidTag

    from vault import hpke

    info = _slot_context(SlotType(row.type), row.no, b"", at)
    try:
        return hpke.open_(secret, info, row.body[_parameters_size(row) :])
    except InvalidTag:
        return None


def seal_both_slot(
    row: tuple[int, tuple[int, bytes], bytes],
    keys: tuple[bytes, bytes],
    at: tuple[bytes, int],
    root_key: bytes,
) -> SlotRow:
    """Wrap the root key so that KEK and passphrase are both needed (passphrase mode).

    row: (number, place of the KEK, Argon2 parameters); keys: (KEK, public key of the passphrase).
    The passphrase's HPKE seal lies inside the KEK's: a purge renews both without asking.
    """
    from vault import hpke

    no, place, parameters = row
    kek, public = keys
    fields = _KEYRING.pack(*place)
    info = _slot_context(SlotType.KEYRING_AND_PASSPHRASE, no, fields, at)
    sealed = seal_small(kek, info, hpke.seal(public, info, root_key))
    return SlotRow(no, SlotType.KEYRING_AND_PASSPHRASE, fields + parameters + sealed)


def open_both_slot(row: SlotRow, kek: bytes, secret: bytes, at: tuple[bytes, int]) -> bytes | None:
    """Return the root key, or None when the KEK fits and the passphrase's secret does not.

    Raises DamagedError when slot and KEK do not belong together.
    """
    from cryptography.exceptions import InvalidTag

    from vault import hpke

    fields = _KEYRING.pack(*keyring_fields(row))
    info = _slot_context(SlotType.KEYRING_AND_PASSPHRASE, row.no, fields, at)
    if len(kek) != KEY_BYTES:
        raise DamagedError("the key store holds something else than this vault's key")
    inner = open_small(kek, info, row.body[_KEYRING.size + PARAMETERS_BYTES :])
    try:
        return hpke.open_(secret, info, inner)
    except InvalidTag:
        return None


def passphrase_parameters(row: SlotRow) -> bytes:
    """Return the encoded Argon2 parameters of a slot of type 3 or 4."""
    if row.type == SlotType.KEYRING_AND_PASSPHRASE:
        keyring_fields(row)  # checks the size
        return row.body[_KEYRING.size : _KEYRING.size + PARAMETERS_BYTES]
    return row.body[: _parameters_size(row)]


def _parameters_size(row: SlotRow) -> int:
    size = PARAMETERS_BYTES if row.type == SlotType.PASSPHRASE else 0
    if len(row.body) != size + _HPKE_BYTES:
        raise DamagedError("a key slot has a wrong size")
    return size


def _slot_context(type_: SlotType, no: int, fields: bytes, at: tuple[bytes, int]) -> bytes:
    """Bind a wrapped root key to its slot: the id is type || number || 14 bytes of the fields.

    Argon2 parameters need no place in it: another salt or cost derives another secret.
    """
    vault_id, epoch = at
    return context(Kind.SLOT, vault_id, bytes((type_, no)) + fields.ljust(14, b"\0"), epoch)
