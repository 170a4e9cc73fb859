"""Seals open in one way: the C2SP vectors, and every bend of a small one."""

import hashlib
import hmac
import json
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from vault import sealing
from vault.errors import BadValueError, DamagedError, StorageError
from vault.sealing import (
    CHUNK_BYTES,
    PREFIX_BYTES,
    expand,
    open_blob,
    open_small,
    seal_blob,
    seal_small,
    sealed_blob_size,
)

VECTORS = Path(__file__).parents[1] / "vectors"
C2SP = json.loads((VECTORS / "c2sp_chunked_encryption_aes_256_gcm_test.json").read_text())
CASES = C2SP["testGroups"][0]["tests"]
KEY, CONTEXT = bytes(range(32)), b"context"


class Plain:
    """Plaintext without a frame, as the vectors seal it."""

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def parts(self, size):
        return [self.data[at : at + size] for at in range(0, len(self.data) + 1, size)]


def cut(data):
    return Plain(data).parts(CHUNK_BYTES)


def opened(key, context, sealed):
    return bytes(open_blob(key, context, sealed))


def test_all_vectors_are_there():
    assert len(CASES) == C2SP["numberOfTests"] == 35


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["tcId"]))
def test_c2sp_vector(case):
    key, context = bytes.fromhex(case["key"]), bytes.fromhex(case["ctx"])
    sealed = zlib.decompress(bytes.fromhex(case["ct"]))
    if case["result"] == "invalid":
        with pytest.raises(DamagedError):
            open_blob(key, context, sealed)
        return
    plaintext = opened(key, context, sealed)
    assert len(plaintext) == case["msgLength"]
    assert hashlib.sha512(plaintext).hexdigest() == case["msgSha512"]
    # Sealing the same plaintext under the same salt gives the vector's very bytes.
    assert sealing._encrypt_with_salt(key, context, cut(plaintext), sealed[:24]) == sealed


def test_expand_is_hkdf_expand_sha512():
    # RFC 5869, 2.3, written out for two blocks.
    first = hmac.digest(KEY, b"label\x01", "sha512")
    second = hmac.digest(KEY, first + b"label\x02", "sha512")
    assert expand(KEY, b"label", 76) == (first + second)[:76]


@given(st.integers(0, 3), st.integers(-2, 2))
def test_sizes_around_chunk_borders(chunks, off):
    size = max(0, chunks * CHUNK_BYTES + off)
    plaintext = bytes(range(256)) * (size // 256 + 1)
    sealed = seal_blob(KEY, CONTEXT, Plain(plaintext[:size]))
    assert len(sealed) == sealed_blob_size(size)
    assert opened(KEY, CONTEXT, sealed) == plaintext[:size]


def test_every_bit_of_a_blob_counts():
    sealed = seal_blob(KEY, CONTEXT, Plain(b"thirteen byte"))
    for bit in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_blob(KEY, CONTEXT, bent)


def test_every_truncation_and_extension_of_a_blob_fails():
    sealed = seal_blob(KEY, CONTEXT, Plain(b"thirteen byte"))
    for size in range(len(sealed)):
        with pytest.raises(DamagedError):
            open_blob(KEY, CONTEXT, sealed[:size])
    for tail in (b"\0", bytes(16), sealed[PREFIX_BYTES:]):
        with pytest.raises(DamagedError):
            open_blob(KEY, CONTEXT, sealed + tail)


@pytest.mark.parametrize(
    "order", [[1, 0, 2], [0, 0, 2], [0, 1, 1], [0, 2], [0, 1], [2], [0, 1, 2, 2], [0, 1, 0, 2]]
)
def test_chunks_keep_their_places(order):
    sealed = seal_blob(KEY, CONTEXT, Plain(bytes(2 * CHUNK_BYTES) + b"end"))
    body, step = sealed[PREFIX_BYTES:], CHUNK_BYTES + 16
    chunks = [body[:step], body[step : 2 * step], body[2 * step :]]
    bent = sealed[:PREFIX_BYTES] + b"".join(chunks[i] for i in order)
    with pytest.raises(DamagedError):
        open_blob(KEY, CONTEXT, bent)


class Bending:
    """A cipher in whose output chunk `number` has a flipped bit at `place`."""

    def __init__(self, cipher: AESGCM, number: int, place: int) -> None:
        self.cipher, self.number, self.place = cipher, number, place

    def encrypt_into(self, nonce, chunk, aad, target):
        self.cipher.encrypt_into(nonce, chunk, aad, target)
        self._bend(target)

    def decrypt_into(self, nonce, chunk, aad, target):
        self.cipher.decrypt_into(nonce, chunk, aad, target)
        self._bend(target)

    def _bend(self, target):
        if self.number == 0:
            target[self.place] ^= 1
        self.number -= 1


@pytest.mark.parametrize("made", [1, 2], ids=["sealing", "the check"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("place", [0, -1])
def test_a_chunk_that_came_out_wrong_is_noticed(made, number, place, monkeypatch):
    """A flipped bit in memory while sealing must not be kept for ever."""
    real, called = sealing._schedule, []

    def schedule(*arguments: bytes) -> tuple:
        cipher, nonce, commitment = real(*arguments)
        called.append(cipher)
        return Bending(cipher, number, place) if len(called) == made else cipher, nonce, commitment

    monkeypatch.setattr(sealing, "_schedule", schedule)
    with pytest.raises(StorageError, match="does not open to its plaintext"):
        seal_blob(KEY, CONTEXT, Plain(bytes(2 * CHUNK_BYTES) + b"end"))


def test_a_seal_under_keys_that_came_out_wrong_is_not_given_out(monkeypatch):
    real, called = sealing._schedule, []

    def schedule(key: bytes, context: bytes, salt: bytes) -> tuple:
        called.append(key)
        return real(key if len(called) == 1 else key[::-1], context, salt)

    monkeypatch.setattr(sealing, "_schedule", schedule)
    with pytest.raises(StorageError, match="does not open to its plaintext"):
        seal_blob(KEY, CONTEXT, Plain(b"end"))


@pytest.mark.parametrize("size", [1, 100, CHUNK_BYTES, CHUNK_BYTES + 9])
def test_a_fresh_seal_of_a_mere_beginning_is_not_accepted(size):
    plaintext = bytes(range(7)) * CHUNK_BYTES
    source = Plain(plaintext[:-size])
    source.size = len(plaintext)
    with pytest.raises(StorageError, match="does not open to its plaintext"):
        seal_blob(KEY, CONTEXT, source)


def test_another_key_context_or_salt_fails():
    one, other = (seal_blob(KEY, CONTEXT, Plain(b"same")) for _ in range(2))
    assert one != other
    for key, context, sealed in [
        (KEY[::-1], CONTEXT, one),
        (KEY, b"Context", one),
        (KEY, CONTEXT, other[:24] + one[24:]),
        (KEY, CONTEXT, other[:PREFIX_BYTES] + one[PREFIX_BYTES:]),
    ]:
        with pytest.raises(DamagedError):
            open_blob(key, context, sealed)


def test_a_key_of_another_width_is_refused():
    with pytest.raises(BadValueError):
        seal_blob(KEY[:31], CONTEXT, Plain(b""))


def test_small_seals_bind_every_bit_and_their_context():
    sealed = seal_small(KEY, CONTEXT, b"row")
    assert sealed != seal_small(KEY, CONTEXT, b"row")
    assert open_small(KEY, CONTEXT, sealed) == b"row"
    with pytest.raises(DamagedError):
        open_small(KEY, b"Context", sealed)
    for bit in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_small(KEY, CONTEXT, bytes(bent))
    for size in range(len(sealed)):
        with pytest.raises(DamagedError):
            open_small(KEY, CONTEXT, sealed[:size])
