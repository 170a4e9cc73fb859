"""Seal a key to the holder of a secret who need not be there: HPKE, RFC 9180.

Base mode, one suite: DHKEM(X25519, HKDF-SHA256) 0x0020, HKDF-SHA256 0x0001, AES-256-GCM 0x0002.
Base mode does not say who sealed, so what was opened is trusted only where the public key was
kept secret (it lives inside the sealed root) and `info` binds the meaning.
"""

from typing import TYPE_CHECKING

from vault.errors import BadValueError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

__all__ = ["OVERHEAD", "open_", "public_key", "seal"]

KEY_BYTES = 32  # of X25519: secret, public and encapsulated keys alike
OVERHEAD = 48  # bytes that `seal` adds: encapsulated key 32 and tag 16


def public_key(secret: bytes) -> bytes:
    """Return the X25519 public key, 32 bytes, of a 32-byte secret."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(_key(secret)).public_key().public_bytes_raw()


def seal(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Seal `plaintext` to `public` under `info`; return encapsulated key || ciphertext || tag.

    Raises BadValueError for a public key that X25519 cannot use.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    key = X25519PublicKey.from_public_bytes(_key(public))
    try:
        return _suite().encrypt(plaintext, key, info)
    except ValueError:  # a point of small order: the shared secret would be all zeros
        raise BadValueError("this public key is not one that X25519 can seal to") from None


def open_(secret: bytes, info: bytes, sealed: bytes) -> bytes:
    """Open what `seal` made for the public key of `secret` under the same `info`.

    Raises cryptography.exceptions.InvalidTag when it does not open, whatever the reason.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(_key(secret))
    return _suite().decrypt(sealed, key, info)


def _suite() -> "Suite":
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _key(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise BadValueError(f"an X25519 key has {KEY_BYTES} bytes, not {len(key)}")
    return key
