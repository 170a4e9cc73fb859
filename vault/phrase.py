"""The recovery phrase: 160 random bits on paper that open one vault.

    bits    200 = secret 160 | vault tag 16 | checksum 24, written in Crockford's base 32
    text    40 characters in 8 groups of 5: letters without I, L, O, U, and digits
    tag     SHA-256(TAG_LABEL || vault_id), first 2 bytes: tells another vault's phrase from a typo
    check   SHA-256(CHECK_LABEL || secret || tag), first 3 bytes
    secret  HKDF-SHA256(160 bits, no salt, SECRET_LABEL || vault_id), 32 bytes

Source of the alphabet: https://www.crockford.com/base32.html. Reading ignores case, blanks and
dashes, and takes O for 0, I and L for 1, as that page says.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from typing import Self

from vault.errors import BadValueError, PhraseError
from vault.secret import Secret

__all__ = ["RecoveryPhrase"]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
CHARACTERS = 40  # 200 bits, 5 a character
GROUP = 5  # characters
ENTROPY_BYTES = 20  # 160 bits
TAG_BYTES = 2
CHECK_BYTES = 3
VAULT_ID_BYTES = 16
LONGEST_TEXT = 1000  # characters looked at, blanks included: a phrase has about 50

TAG_LABEL = b"safelight/vault/1/phrase-tag\0"
CHECK_LABEL = b"safelight/vault/1/phrase-check\0"
SECRET_LABEL = b"safelight/vault/1/phrase-secret\0"

VALUES = (
    {sign: value for value, sign in enumerate(ALPHABET)}
    | {sign.lower(): value for value, sign in enumerate(ALPHABET)}
    | {"O": 0, "o": 0, "I": 1, "i": 1, "L": 1, "l": 1}
)
# Blanks are told by str.isspace; dashes and invisible marks by their Unicode category.
IGNORED_CATEGORIES = frozenset({"Pd", "Cf"})

AS_WRITTEN = "Type the phrase as it was written down: 8 groups of 5 letters and digits."


class RecoveryPhrase:
    """The phrase of one vault. Its `repr` is masked; `text` and `secret` give it out."""

    __slots__ = ("_entropy", "_vault_id")

    def __init__(self, entropy: Secret, vault_id: bytes) -> None:
        """Hold `entropy`, 20 bytes, for the vault `vault_id`, 16 bytes."""
        if len(entropy.reveal()) != ENTROPY_BYTES:
            raise BadValueError(f"a recovery phrase holds {ENTROPY_BYTES} random bytes")
        if len(vault_id) != VAULT_ID_BYTES:
            raise BadValueError(f"a vault id has {VAULT_ID_BYTES} bytes, not {len(vault_id)}")
        self._entropy = entropy
        self._vault_id = vault_id

    @classmethod
    def generate(cls, vault_id: bytes) -> Self:
        """Draw a new phrase for the vault `vault_id` from the system's random source."""
        return cls(Secret(os.urandom(ENTROPY_BYTES)), vault_id)

    @classmethod
    def parse(cls, text: str, vault_id: bytes) -> Self:
        """Read what a person typed.

        Raises PhraseError with three kinds of message: not the shape of a phrase, a typo (it
        names the group that is most likely wrong, never what it should be), or a phrase that is
        right and belongs to another vault.
        """
        digits = _digits(text)
        _refuse_typo(digits)
        entropy, tag, _check = _split(digits)
        if tag != _vault_tag(vault_id):
            raise PhraseError(
                "this recovery phrase belongs to another vault",
                hint="It is written correctly: look for the vault that it was made for.",
            )
        return cls(Secret(entropy), vault_id)

    def text(self) -> str:
        """Return the phrase for paper: 40 characters in groups of 5, joined by hyphens."""
        entropy = self._entropy.reveal()
        tag = _vault_tag(self._vault_id)
        number = int.from_bytes(entropy + tag + _checksum(entropy, tag), "big")
        shifts = range(5 * (CHARACTERS - 1), -1, -5)
        signs = "".join(ALPHABET[(number >> shift) & 31] for shift in shifts)
        return "-".join(signs[at : at + GROUP] for at in range(0, CHARACTERS, GROUP))

    def secret(self) -> bytes:
        """Derive the 32 bytes that the phrase's key slot is made of."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        hkdf = HKDF(SHA256(), length=32, salt=None, info=SECRET_LABEL + self._vault_id)
        return hkdf.derive(self._entropy.reveal())

    def __repr__(self) -> str:
        return "RecoveryPhrase(***)"


def _vault_tag(vault_id: bytes) -> bytes:
    return hashlib.sha256(TAG_LABEL + vault_id).digest()[:TAG_BYTES]


def _checksum(entropy: bytes, tag: bytes) -> bytes:
    return hashlib.sha256(CHECK_LABEL + entropy + tag).digest()[:CHECK_BYTES]


def _digits(text: str) -> list[int]:
    """Read `text` as base-32 digits, or raise PhraseError that names a position and no sign."""
    if len(text) > LONGEST_TEXT:
        raise PhraseError("this is far too long to be a recovery phrase", hint=AS_WRITTEN)
    digits: list[int] = []
    for sign in text:
        if sign.isspace() or unicodedata.category(sign) in IGNORED_CATEGORIES:
            continue
        value = VALUES.get(sign)
        if value is None:
            raise PhraseError(
                f"character {len(digits) + 1} of the recovery phrase is not one that a phrase uses",
                hint="A phrase has digits and the letters A to Z without I, L, O and U.",
            )
        digits.append(value)
    if len(digits) != CHARACTERS:
        raise PhraseError(
            f"the recovery phrase has {CHARACTERS} characters, and {len(digits)} were typed",
            hint=AS_WRITTEN,
        )
    return digits


def _split(digits: list[int]) -> tuple[bytes, bytes, bytes]:
    number = 0
    for digit in digits:
        number = number << 5 | digit
    packed = number.to_bytes(CHARACTERS * 5 // 8, "big")
    tag_end = ENTROPY_BYTES + TAG_BYTES
    return packed[:ENTROPY_BYTES], packed[ENTROPY_BYTES:tag_end], packed[tag_end:]


def _adds_up(digits: list[int]) -> bool:
    entropy, tag, check = _split(digits)
    return _checksum(entropy, tag) == check


def _refuse_typo(digits: list[int]) -> None:
    if _adds_up(digits):
        return
    # Trying all 1,279 single slips shows where a slip is; a false hit of the 24-bit checksum, after
    # more slips than one, comes once in 13,000 times and only points at a wrong group.
    groups = {place // GROUP + 1 for place, slip in _slips(digits) if _adds_up(slip)}
    where = f" Look at group {min(groups)} of 8 first." if len(groups) == 1 else ""
    raise PhraseError(
        "the recovery phrase is mistyped: its check characters do not agree",
        hint=f"Compare it with the paper.{where}",
    )


def _slips(digits: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield what one slip of the pen turns `digits` into, with the place of the slip."""
    for place, digit in enumerate(digits):
        for other in range(32):
            if other != digit:
                yield place, [*digits[:place], other, *digits[place + 1 :]]
    for place in range(CHARACTERS - 1):
        if digits[place] != digits[place + 1]:
            swapped = [digits[place + 1], digits[place]]
            yield place, digits[:place] + swapped + digits[place + 2 :]
