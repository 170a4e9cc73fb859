"""Read a vault as FORMAT.md says, with nothing of safelight: a second opinion in one file.

It imports the standard library and `cryptography` only. The tests open the frozen sample vaults
with it, and `make_vault_vectors.py` makes the vault's own vectors with it.
"""

import hashlib
import hmac
import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = [
    "Reader",
    "context",
    "expand_sha512",
    "hpke_open",
    "padded",
    "phrase_secret",
    "seal_chunked",
]

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def expand_sha512(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869, 2.3."""
    block, out, number = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes((number,)), "sha512")
        out += block
        number += 1
    return out[:length]


def context(kind: int, vault_id: bytes, thing: bytes, revision: int) -> bytes:
    """FORMAT.md, 3."""
    return b"safelight/vault/1\0" + vault_id + bytes((kind,)) + thing + revision.to_bytes(8, "big")


def padded(size: int, *, metadata: bool) -> int:
    """FORMAT.md, 4: the size of a frame whose length field and payload take `size` bytes."""
    if metadata and size <= 4096:
        return (size + 255) // 256 * 256
    exponent = size.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return (size + step - 1) // step * step


def unframe(framed: bytes, *, metadata: bool) -> bytes:
    """FORMAT.md, 4."""
    length = int.from_bytes(framed[:8], "big")
    if padded(8 + length, metadata=metadata) != len(framed) or any(framed[8 + length :]):
        raise ValueError("not the canonical frame")
    return framed[8 : 8 + length]


def seal_chunked(key: bytes, info: bytes, salt: bytes, plaintext: bytes) -> bytes:
    """Seal as c2sp.org/chunked-encryption under a given salt."""
    label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
    block = expand_sha512(key, label + salt + info, 76)
    base, out, number = int.from_bytes(block[32:44], "big"), [salt, block[44:]], 0
    while True:
        chunk = plaintext[number * 16384 : (number + 1) * 16384]
        nonce = (base ^ number).to_bytes(12, "big")
        out.append(AESGCM(block[:32]).encrypt(nonce, chunk, b""))
        if len(chunk) < 16384:
            return b"".join(out)
        number += 1


def open_chunked(key: bytes, info: bytes, sealed: bytes) -> bytes:
    """Open as c2sp.org/chunked-encryption."""
    salt, commitment, body = sealed[:24], sealed[24:56], sealed[56:]
    label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
    block = expand_sha512(key, label + salt + info, 76)
    if block[44:] != commitment:
        raise ValueError("another key or context")
    base, out = int.from_bytes(block[32:44], "big"), []
    for number in range(len(body) // 16400 + 1):
        chunk = body[number * 16400 : (number + 1) * 16400]
        nonce = (base ^ number).to_bytes(12, "big")
        out.append(AESGCM(block[:32]).decrypt(nonce, chunk, b""))
    return b"".join(out)


def open_small(key: bytes, info: bytes, sealed: bytes) -> bytes:
    """FORMAT.md, 4: nonce(12) || ciphertext || tag(16)."""
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], info)


def phrase_secret(text: str, vault_id: bytes) -> bytes:
    """FORMAT.md, 5: the 32 bytes of a recovery phrase (that is written without a mistake)."""
    number = 0
    for sign in text.replace("-", ""):
        number = number << 5 | CROCKFORD.index(sign)
    entropy = number.to_bytes(25, "big")[:20]
    info = b"safelight/vault/1/phrase-secret\0" + vault_id
    return HKDF(SHA256(), 32, None, info).derive(entropy)


def hpke_open(secret: bytes, info: bytes, sealed: bytes) -> bytes:
    """RFC 9180, base mode, single shot: DHKEM(X25519), HKDF-SHA256, AES-256-GCM, written out."""
    private = X25519PrivateKey.from_private_bytes(secret)
    enc, public = sealed[:32], private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\x01\0\x02"

    def extract(suite_id: bytes, salt: bytes, label: bytes, data: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + data, "sha256")

    def expand(suite_id: bytes, key: bytes, labelled: bytes, length: int) -> bytes:
        head = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id
        return hmac.digest(key, head + labelled + b"\x01", "sha256")[:length]

    eae = extract(kem, b"", b"eae_prk", shared)
    secret_of_kem = expand(kem, eae, b"shared_secret" + enc + public, 32)
    hashes = extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret_of_kem, b"secret", b"")
    key = expand(suite, prk, b"key" + b"\0" + hashes, 32)
    nonce = expand(suite, prk, b"base_nonce" + b"\0" + hashes, 12)
    return AESGCM(key).decrypt(nonce, sealed[32:], b"")


class Reader:
    """A whole vault, opened with its recovery phrase; `records` is filled by `read`."""

    def __init__(self, folder: Path, phrase: str) -> None:
        self.folder = folder
        header = (folder / "VAULT").read_bytes()
        magic, self.format, self.suite, self.vault_id = struct.unpack(">16sHH16s", header[:36])
        if (
            magic != b"safelight vault\n"
            or hashlib.sha256(header[:36]).digest()[:28] != header[36:]
        ):
            raise ValueError("not a vault")
        self.secret = phrase_secret(phrase, self.vault_id)

    def read(self) -> list[dict]:
        """Return the records, oldest first: id, kind, revision, trashed, metadata, blobs."""
        with closing(sqlite3.connect(self.folder / "index.sqlite")) as index:
            _no, vault_id, epoch, generation = index.execute("SELECT * FROM state").fetchone()
            slots = index.execute("SELECT no, type, body FROM keyslot ORDER BY no").fetchall()
            (root,) = index.execute("SELECT sealed FROM root").fetchone()
            pages = dict(index.execute("SELECT no, sealed FROM page"))
            rows = {pos: rest for pos, *rest in index.execute("SELECT * FROM record")}
        if vault_id != self.vault_id:
            raise ValueError("another vault's index")
        size, keys = self._root(slots, root, (epoch, generation))
        records = []
        for number, (key, tag, revision) in enumerate(keys):
            info = context(129, self.vault_id, number.to_bytes(16, "big"), revision)
            if pages[number][-16:] != tag:
                raise ValueError("another page")
            page = unframe(open_small(key, info, pages[number]), metadata=True)
            for index_in_page, slot in enumerate(struct.iter_unpack(">16s32s32sQ", page)):
                if slot[3]:
                    records.append(self._record(slot, rows[number * size + index_in_page]))
        return records

    def _root(
        self, slots: list[tuple], sealed: bytes, at: tuple[int, int]
    ) -> tuple[int, list[tuple[bytes, bytes, int]]]:
        """Return the slots a page, and (key, tag, revision) of each page."""
        epoch, generation = at
        (phrase_slot,) = [slot for slot in slots if slot[1] == 2]
        info = context(131, self.vault_id, bytes((2, phrase_slot[0])) + bytes(14), epoch)
        root_key = hpke_open(self.secret, info, phrase_slot[2])
        key = expand_sha512(root_key, b"safelight/vault/1 root", 32)
        info = context(128, self.vault_id, epoch.to_bytes(16, "big"), generation)
        root = unframe(open_small(key, info, sealed), metadata=True)
        version, _position, _seals, digest, count = struct.unpack_from(">HQQ32sB", root)
        table = b"".join(struct.pack(">BBI", no, type_, len(b)) + b for no, type_, b in slots)
        if version not in {1, 2} or hashlib.sha256(table).digest() != digest:
            raise ValueError("other key slots")
        at_pages = 51 + 34 * count
        named = {root[51 + 34 * i]: root[53 + 34 * i : 85 + 34 * i] for i in range(count)}
        public = X25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()
        if named[phrase_slot[0]] != public:
            raise ValueError("the root does not know this phrase")
        (pages,) = struct.unpack_from(">I", root, at_pages)
        fields = struct.iter_unpack(">32s16sQB", root[at_pages + 4 : at_pages + 4 + 57 * pages])
        return {1: 1024, 2: 256}[version], [
            (key, tag, revision) for key, tag, revision, _flags in fields
        ]

    def _record(self, slot: tuple, row: list) -> dict:
        record_id, blob_key, metadata_key, word = slot
        kind, flags, revision = word >> 56, word >> 48 & 0xFF, word & (1 << 48) - 1
        info = context(kind, self.vault_id, record_id, revision)
        document = json.loads(unframe(open_small(metadata_key, info, row[1]), metadata=True))
        if row[0] != record_id:
            raise ValueError("another record")
        blobs = {}
        for blob in document["blobs"]:
            name = bytes.fromhex(blob["file"])
            sealed = (self.folder / "blobs" / name[:1].hex() / name.hex()).read_bytes()
            label = b"safelight/vault/1 blob" + bytes((blob["kind"],)) + name
            info = context(blob["kind"], self.vault_id, record_id, blob["revision"])
            framed = open_chunked(expand_sha512(blob_key, label, 32), info, sealed)
            blobs[blob["name"]] = unframe(framed, metadata=False)
        return {
            "id": record_id.hex(),
            "kind": kind,
            "revision": revision,
            "trashed": bool(flags & 1),
            "created": document["created"],
            "metadata": document["data"],
            "blobs": blobs,
        }
