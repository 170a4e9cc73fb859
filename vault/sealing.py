"""Seal and open bytes: AES-256-GCM for small things, C2SP chunked encryption for blobs.

Blobs follow c2sp.org/chunked-encryption with AES-256-GCM and HKDF-SHA-512:
salt(24) || commitment(32) || chunks of 16 KiB, the last one always shorter. The commitment is
compared before any chunk is opened, so one ciphertext opens under one key and context only.
"""

import hmac
import os
from collections.abc import Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.errors import BadValueError, DamagedError, StorageError

__all__ = [
    "CHUNK_BYTES",
    "KEY_BYTES",
    "OVERHEAD_BYTES",
    "PREFIX_BYTES",
    "SEAL_LIMIT",
    "TAG_BYTES",
    "Source",
    "check_blob",
    "encrypt_blob",
    "expand",
    "open_blob",
    "open_small",
    "seal_blob",
    "seal_small",
    "sealed_blob_size",
]

KEY_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES  # what a small seal adds
CHUNK_BYTES = 16 * 1024  # plaintext bytes a chunk, fixed by the C2SP text
SALT_BYTES = 24
COMMITMENT_BYTES = 32
PREFIX_BYTES = SALT_BYTES + COMMITMENT_BYTES  # 56: what a record keeps of each blob
# Random 96-bit nonces: 2^28 seals keep a collision below 2^-40; the counter is the revision.
SEAL_LIMIT = 1 << 28
_CHUNKED_LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
_SEALED_CHUNK = CHUNK_BYTES + TAG_BYTES


def expand(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Return `length` bytes of HKDF-Expand-SHA512(key, info); one `info` label a use."""
    return HKDFExpand(SHA512(), length, info).derive(key)


def seal_small(key: bytes, aad: bytes, plaintext: bytes) -> bytes:
    """Return nonce(12) || ciphertext || tag(16) under a fresh random nonce.

    Opens the result again and compares it before it is returned: a flipped bit in RAM must not be
    sealed for ever. Raises StorageError when it differs.
    """
    cipher = AESGCM(key)
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + cipher.encrypt(nonce, plaintext, aad)
    if open_small(key, aad, sealed) != plaintext:
        raise _unsound()
    return sealed


def open_small(key: bytes, aad: bytes, sealed: bytes) -> bytes:
    """Return the plaintext of `seal_small`; raises DamagedError when it does not open."""
    if len(sealed) < OVERHEAD_BYTES:
        raise DamagedError("a sealed row is shorter than its nonce and tag")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except InvalidTag:
        raise DamagedError("a sealed row does not open: damaged, swapped or replayed") from None


def sealed_blob_size(size: int) -> int:
    """Return the bytes of a sealed blob of `size` plaintext bytes."""
    return PREFIX_BYTES + size + TAG_BYTES * (size // CHUNK_BYTES + 1)


class Source(Protocol):
    """Plaintext that is given out in pieces (`vault.frame.Framed`). size: its bytes."""

    size: int

    def parts(self, size: int) -> Sequence[bytes | memoryview]:
        """Return it in pieces of `size` bytes; the last is shorter, and empty if it must be."""
        ...


def seal_blob(key: bytes, context: bytes, source: Source) -> bytearray:
    """Return salt || commitment || sealed chunks under a fresh salt, after `check_blob` saw it.

    Raises BadValueError for a key of another width than 32 bytes, StorageError as `check_blob`.
    """
    sealed = encrypt_blob(key, context, source)
    check_blob(key, context, source, sealed)
    return sealed


def encrypt_blob(key: bytes, context: bytes, source: Source) -> bytearray:
    """Return what `seal_blob` does, not looked at again: the caller calls `check_blob` in time."""
    return _encrypt_with_salt(key, context, source.parts(CHUNK_BYTES), os.urandom(SALT_BYTES))


def check_blob(key: bytes, context: bytes, source: Source, sealed: bytes | bytearray) -> None:
    """Open a fresh seal, under keys derived once more, and compare it with its plaintext.

    What flips in RAM must not be sealed for ever: nothing may rely on a seal before this returned.
    Raises StorageError when it does not open to its plaintext.
    """
    if len(sealed) != sealed_blob_size(source.size):
        raise _unsound()
    cipher, base_nonce, commitment = _schedule(key, context, bytes(sealed[:SALT_BYTES]))
    if commitment != sealed[SALT_BYTES:PREFIX_BYTES]:
        raise _unsound()
    chunks = source.parts(CHUNK_BYTES)
    opened, at = bytearray(CHUNK_BYTES), PREFIX_BYTES
    decrypt_into, is_opened = cipher.decrypt_into, opened.startswith  # compares without a copy
    with memoryview(sealed) as body, memoryview(opened) as target:
        for nonce, chunk in zip(_nonces(base_nonce, len(chunks)), chunks, strict=True):
            end = at + len(chunk) + TAG_BYTES
            try:
                decrypt_into(nonce, body[at:end], None, target[: len(chunk)])
            except InvalidTag:
                raise _unsound() from None
            if not is_opened(chunk):
                raise _unsound()
            at = end


def open_blob(key: bytes, context: bytes, sealed: bytes | bytearray) -> bytearray:
    """Return the whole plaintext of a sealed blob.

    Raises DamagedError, and returns not one byte, when the commitment or any chunk is wrong, out
    of its place, missing or too many. The chunks are opened into the buffer that is returned: the
    page faults of a second one of a picture's size cost more than the cipher.
    """
    if len(sealed) < PREFIX_BYTES + TAG_BYTES:
        raise DamagedError("a sealed blob is cut short")
    if len(key) != KEY_BYTES:
        raise DamagedError(f"a blob key is {KEY_BYTES} bytes, got {len(key)}")
    cipher, base_nonce, commitment = _schedule(key, context, bytes(sealed[:SALT_BYTES]))
    if not hmac.compare_digest(commitment, sealed[SALT_BYTES:PREFIX_BYTES]):
        raise DamagedError("a sealed blob has another key or context: damaged, swapped or replayed")
    size = len(sealed) - PREFIX_BYTES
    count = size // _SEALED_CHUNK + 1  # the last one is always shorter than a whole chunk
    if size - (count - 1) * _SEALED_CHUNK < TAG_BYTES:
        raise DamagedError("a sealed blob lacks its last chunk")
    opened = bytearray(size - count * TAG_BYTES)
    at, start, decrypt_into = PREFIX_BYTES, 0, cipher.decrypt_into
    with memoryview(sealed) as body, memoryview(opened) as target:
        try:
            for nonce in _nonces(base_nonce, count):
                chunk, place = body[at : at + _SEALED_CHUNK], target[start : start + CHUNK_BYTES]
                decrypt_into(nonce, chunk, None, place)
                at, start = at + _SEALED_CHUNK, start + CHUNK_BYTES
        except InvalidTag:
            raise DamagedError("a sealed blob does not open: damaged or altered") from None
    return opened


def _encrypt_with_salt(
    key: bytes, context: bytes, chunks: Sequence[bytes | memoryview], salt: bytes
) -> bytearray:
    """Seal under a given salt. Only `encrypt_blob` and the vectors' script choose one."""
    if len(key) != KEY_BYTES:
        raise BadValueError(f"a blob key is {KEY_BYTES} bytes, got {len(key)}")
    cipher, base_nonce, commitment = _schedule(key, context, salt)
    count = len(chunks)
    sealed = bytearray(PREFIX_BYTES + sum(map(len, chunks)) + TAG_BYTES * count)
    sealed[:PREFIX_BYTES] = salt + commitment
    start, encrypt_into = PREFIX_BYTES, cipher.encrypt_into
    with memoryview(sealed) as body:
        for nonce, chunk in zip(_nonces(base_nonce, count), chunks, strict=True):
            end = start + len(chunk) + TAG_BYTES
            encrypt_into(nonce, chunk, None, body[start:end])
            start = end
    return sealed


def _unsound() -> StorageError:
    return StorageError("a fresh seal does not open to its plaintext", hint="Test the memory.")


def _schedule(key: bytes, context: bytes, salt: bytes) -> tuple[AESGCM, int, bytes]:
    """Return cipher, base nonce (a number) and commitment of one message."""
    block = expand(key, _CHUNKED_LABEL + salt + context, KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES)
    nonce = int.from_bytes(block[KEY_BYTES : KEY_BYTES + NONCE_BYTES], "big")
    return AESGCM(block[:KEY_BYTES]), nonce, block[KEY_BYTES + NONCE_BYTES :]


def _nonces(base_nonce: int, count: int) -> list[bytes]:
    """Return base nonce XOR index for each chunk."""
    return [(base_nonce ^ index).to_bytes(NONCE_BYTES, "big") for index in range(count)]
