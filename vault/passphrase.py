"""A passphrase and the key that Argon2id makes of it (RFC 9106).

Encoded parameters, 22 bytes: salt 16 || memory in KiB, u32 || iterations, u8 || lanes, u8; big
endian.
"""

import os
import struct
import unicodedata
from dataclasses import dataclass
from typing import Self

from vault.errors import BadValueError, DamagedError, LockedError
from vault.secret import Secret

__all__ = ["Argon2Parameters", "derive", "passphrase_secret"]

SALT_BYTES = 16
KEY_BYTES = 32
LAYOUT = struct.Struct(">16sIBB")
# Lower bounds: RFC 9106's second recommended option (64 MiB, 3 passes, 4 lanes) less its lanes.
# Upper bounds keep a planted slot from eating the machine's memory or an evening.
MEMORY_KIB = (64 * 1024, 1024 * 1024)  # 64 MiB to 1 GiB
ITERATIONS = (3, 16)
LANES = (1, 8)
LONGEST_PASSPHRASE = 4096  # characters: beyond it, somebody gave the wrong file


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """What Argon2id needs beside the passphrase; not secret, stored in the key slot.

    salt: 16 bytes. memory_kib: KiB of memory. iterations: passes over it. lanes: parallel lanes.
    Raises BadValueError outside 64 MiB to 1 GiB, 3 to 16 passes, 1 to 8 lanes.
    """

    salt: bytes
    memory_kib: int = 65536
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            raise BadValueError(f"an Argon2 salt has {SALT_BYTES} bytes, not {len(self.salt)}")
        _check("memory in KiB", self.memory_kib, MEMORY_KIB)
        _check("number of passes", self.iterations, ITERATIONS)
        _check("number of lanes", self.lanes, LANES)

    @classmethod
    def generate(cls) -> Self:
        """Draw a fresh salt and take the usual cost: 64 MiB, 3 passes, 4 lanes."""
        return cls(os.urandom(SALT_BYTES))

    def encode(self) -> bytes:
        """Return the 22 bytes that go into the key slot."""
        return LAYOUT.pack(self.salt, self.memory_kib, self.iterations, self.lanes)

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read 22 bytes of a key slot; nothing is allocated for the derivation yet.

        Raises DamagedError when the length or a cost is not one that this version writes or
        accepts.
        """
        if len(encoded) != LAYOUT.size:
            raise DamagedError(f"Argon2 parameters take {LAYOUT.size} bytes, not {len(encoded)}")
        try:
            return cls(*LAYOUT.unpack(encoded))
        except BadValueError as error:
            raise DamagedError(f"the key slot asks for a cost that is refused: {error}") from None


def passphrase_secret(text: str) -> Secret:
    """Take what a person typed as UTF-8 of its NFC form, so that every keyboard agrees.

    Blanks at the ends count. Raises BadValueError for an empty or blank passphrase, one of more
    than 4096 characters, or one that is not text; no message holds a part of it.
    """
    if not text.strip():
        raise BadValueError("the passphrase is empty", hint="Choose a long one of several words.")
    if len(text) > LONGEST_PASSPHRASE:
        raise BadValueError(
            f"the passphrase has {len(text)} characters; up to {LONGEST_PASSPHRASE} are accepted",
            hint="Was it read from the right file?",
        )
    try:
        return Secret(unicodedata.normalize("NFC", text).encode("utf-8"))
    except UnicodeEncodeError:  # its message would show the passphrase
        raise BadValueError(
            "the passphrase is not valid text", hint="Save the passphrase file as UTF-8."
        ) from None


def derive(passphrase: Secret, parameters: Argon2Parameters) -> bytes:
    """Derive the 32-byte key of `passphrase` with Argon2id version 0x13.

    Takes about a tenth of a second and `parameters.memory_kib` KiB. Raises LockedError when the
    machine cannot spare that memory.
    """
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    argon2 = Argon2id(
        salt=parameters.salt,
        length=KEY_BYTES,
        iterations=parameters.iterations,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    )
    try:
        return argon2.derive(passphrase.reveal())
    except MemoryError:
        raise LockedError(
            f"the passphrase needs {parameters.memory_kib // 1024} MiB of memory to be checked",
            hint="Close other programs and try again.",
        ) from None


def _check(what: str, got: int, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if not low <= got <= high:
        raise BadValueError(f"the {what} of Argon2 is {got}; {low} to {high} are accepted")
