"""The name that results go by: a keyed hash of what the machine is made of, and a signing key.

Both come from 32 random bytes in the home (`bench.key`), which never leave it. Without them nobody
can compute the id from a description of the machine; delete the file, and later results cannot be
linked to earlier ones. No serial number is read.
"""

import hmac
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from benchmarks.canonical import canonical
from benchmarks.document import Result, Signature
from benchmarks.errors import ResultError, TamperedError

__all__ = ["Pseudonym", "check_signature"]

KEY_NAME: Final = "bench.key"
KEY_BYTES: Final = 32
ID_DIGITS: Final = 16


class Pseudonym:
    """One installation's name for itself. secret: 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._id_key = _derived(secret, b"safelight bench: machine id")
        self._signer = Ed25519PrivateKey.from_private_bytes(
            _derived(secret, b"safelight bench: signature")
        )

    @classmethod
    def of(cls, folder: Path) -> "Pseudonym":
        """Read the secret in `folder`, made there first if need be, readable by its owner alone."""
        path = folder / KEY_NAME
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            secret = path.read_bytes()
            if len(secret) != KEY_BYTES:
                raise ResultError(
                    f"{KEY_NAME} has {len(secret)} bytes; it should have {KEY_BYTES}",
                    hint="delete it: a new one is made, and with it another machine id",
                ) from None
            return cls(secret)
        secret = os.urandom(KEY_BYTES)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
        return cls(secret)

    def machine_id(self, facts: Mapping[str, object]) -> str:
        """Give 16 hex digits for a machine of these facts (models and sizes, no serials)."""
        return hmac.new(self._id_key, canonical(facts), sha256).hexdigest()[:ID_DIGITS]

    def sign(self, result: Result) -> Result:
        """Give the result with a signature of everything in it."""
        public = self._signer.public_key().public_bytes_raw().hex()
        value = self._signer.sign(_signed(result)).hex()
        return result.model_copy(update={"signature": Signature(public_key=public, value=value)})


def check_signature(result: Result, name: str) -> None:
    """Raise TamperedError where a result is not what its signature was made of.

    name: of the file, for the message. A result without a signature passes.
    """
    signature = result.signature
    if signature is None:
        return
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key))
    try:
        key.verify(bytes.fromhex(signature.value), _signed(result))
    except InvalidSignature:
        raise TamperedError(
            f"{name} is not what was signed: it was changed after it was measured",
            hint="take it from where it was made, or measure again",
        ) from None


def _signed(result: Result) -> bytes:
    return canonical(result.model_dump(mode="json", exclude={"signature"}))


def _derived(secret: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label).derive(secret)
