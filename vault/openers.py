"""Who opens a vault, and the key slots that say so: sealed anew in each epoch, without asking.

Phrase and passphrase are known by their HPKE public keys, which lie in the sealed root.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vault.errors import BadValueError, DamagedError
from vault.index import SlotRow
from vault.keystore import KeyStore
from vault.keytree import SlotKey
from vault.passphrase import Argon2Parameters, derive
from vault.secret import Secret
from vault.slots import (
    SlotType,
    passphrase_parameters,
    seal_both_slot,
    seal_hpke_slot,
    seal_keyring_slot,
)

__all__ = ["Openers", "PassphraseKey", "Place", "passphrase_key", "standing"]

Place = tuple[int, bytes]  # key store number, entry


class PassphraseKey(NamedTuple):
    """A passphrase's HPKE public key, and the Argon2 parameters that lead to it."""

    public: bytes
    parameters: bytes

    def __repr__(self) -> str:
        return "PassphraseKey(***)"


@dataclass(frozen=True, kw_only=True, repr=False)
class Openers:
    """Who opens the vault. both: key store and passphrase together, and neither alone.

    phrase: the HPKE public key of the recovery phrase.
    """

    keystore: KeyStore | None
    phrase: bytes | None
    passphrase: PassphraseKey | None
    both: bool = False

    def __post_init__(self) -> None:
        if self.both and (self.keystore is None or self.passphrase is None):
            raise BadValueError("passphrase mode needs a key store and a passphrase")
        if self.keystore is None and self.passphrase is None:
            raise BadValueError(
                "a vault needs a key store or a passphrase beside its recovery phrase",
                hint="Put its key into a key store first (`vault recover`), then remove it.",
            )

    def seal(
        self, root_key: bytes, at: tuple[bytes, int], kek: tuple[Place, bytes] | None
    ) -> tuple[list[SlotRow], tuple[SlotKey, ...]]:
        """Return the slots of `at` = (vault id, epoch) and the public keys that the root names.

        kek: where the KEK lies, and the KEK; None without a key store.
        """
        rows: list[SlotRow] = []
        keys: list[SlotKey] = []
        if kek is not None and not self.both:
            rows.append(seal_keyring_slot(0, kek[1], kek[0], at, root_key))
        if kek is not None and self.both and self.passphrase is not None:
            public, parameters = self.passphrase
            row = seal_both_slot((0, kek[0], parameters), (kek[1], public), at, root_key)
            rows.append(row)
            keys.append(SlotKey(0, SlotType.KEYRING_AND_PASSPHRASE, public))
        hpke: list[tuple[SlotType, bytes, bytes]] = []
        if self.phrase is not None:
            hpke.append((SlotType.PHRASE, b"", self.phrase))
        if self.passphrase is not None and not self.both:
            hpke.append((SlotType.PASSPHRASE, self.passphrase.parameters, self.passphrase.public))
        for type_, parameters, public in hpke:
            rows.append(seal_hpke_slot((len(rows), type_, parameters), public, at, root_key))
            keys.append(SlotKey(rows[-1].no, type_, public))
        return rows, tuple(keys)


def standing(
    rows: Sequence[SlotRow], keys: Sequence[SlotKey], keystore: KeyStore | None
) -> Openers:
    """Return who opens the vault as slots and root say; keystore: where the KEK is to lie."""
    public = {key.no: key.public for key in keys}
    phrase, passphrase, both = None, None, False
    for row in rows:
        match row.type:
            case SlotType.PHRASE:
                phrase = _named(public, row)
            case SlotType.PASSPHRASE | SlotType.KEYRING_AND_PASSPHRASE:
                passphrase = PassphraseKey(_named(public, row), passphrase_parameters(row))
                both = row.type == SlotType.KEYRING_AND_PASSPHRASE
            case _:
                continue
    return Openers(keystore=keystore, phrase=phrase, passphrase=passphrase, both=both)


def passphrase_key(passphrase: Secret) -> PassphraseKey:
    """Return the key of a passphrase under fresh Argon2 parameters; takes a tenth of a second."""
    from vault import hpke

    parameters = Argon2Parameters.generate()
    return PassphraseKey(hpke.public_key(derive(passphrase, parameters)), parameters.encode())


def _named(public: dict[int, bytes], row: SlotRow) -> bytes:
    if row.no not in public:
        raise DamagedError(f"the root names no public key for key slot {row.no}")
    return public[row.no]
