"""Write `vault_v1.json`: the vault's own vectors, made with `reference.py` alone.

    python -m tests.vectors.make_vault_vectors

Nothing in it is random, so running it again writes the same bytes.
"""

import hashlib
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.reference import context, expand_sha512, padded, seal_chunked

__all__ = ["vectors"]

VAULT, RECORD = bytes(range(16)), bytes(range(0x10, 0x20))
KEY, OTHER = bytes(range(32)), bytes(range(0x80, 0xA0))
FILE = bytes(range(0x20, 0x30))


def _stream(name: str, length: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length)


def _frame(payload: bytes, *, metadata: bool) -> bytes:
    size = 8 + len(payload)
    return struct.pack(">Q", len(payload)) + payload + bytes(padded(size, metadata=metadata) - size)


def _sealed(key: bytes, info: bytes, plaintext: bytes, name: str) -> str:
    nonce = _stream(name, 12)
    return (nonce + AESGCM(key).encrypt(nonce, plaintext, info)).hex()


def vectors() -> dict[str, object]:
    """Return the vectors by what they show."""
    head = struct.pack(">16sHH16s", b"safelight vault\n", 1, 1, VAULT)
    slot = RECORD + KEY + OTHER + (1 << 56 | 1 << 48 | 7).to_bytes(8, "big")
    page = slot + bytes(63 * 88)
    root = (
        struct.pack(">HQQ32sB", 1, 1, 3, _stream("digest", 32), 1)
        + bytes((1, 2))
        + OTHER
        + struct.pack(">I32s16sQB", 1, KEY, _stream("tag", 16), 9, 1)
        + struct.pack(">I", 2)
        + b"{}"
    )
    pages = struct.pack(">I", 2) + struct.pack(">32s16sQB", OTHER, _stream("tag", 16), 9, 1) * 2
    root_2 = struct.pack(">HQQ32sB", 2, 257, 3, _stream("digest", 32), 0) + pages
    root_2 += struct.pack(">I", 2) + b"{}"
    root_info = context(128, VAULT, (5).to_bytes(16, "big"), 6)
    page_info = context(129, VAULT, (0).to_bytes(16, "big"), 9)
    slot_info = context(
        131, VAULT, bytes((1, 0)) + struct.pack(">H", 3) + _stream("entry", 8) + bytes(4), 5
    )
    text = '{"schema":1,"created":"2026-11-24T00:00:00.000Z","trashed":null,"blobs":[],"data":{}}'
    file_key = expand_sha512(KEY, b"safelight/vault/1 blob\x03" + FILE, 32)
    file_info = context(3, VAULT, RECORD, 1)
    picture = _stream("picture", 20_000)
    return {
        "header": (head + hashlib.sha256(head).digest()[:28]).hex(),
        "padding": {
            "blob": [
                [size, padded(size, metadata=False)] for size in (8, 9, 100, 20_008, 1_500_008)
            ],
            "metadata": [
                [size, padded(size, metadata=True)] for size in (8, 256, 257, 4097, 90_120)
            ],
        },
        "root": {
            "root_key": OTHER.hex(),
            "epoch": 5,
            "generation": 6,
            "payload": root.hex(),
            "payload_2": root_2.hex(),
            "sealed": _sealed(
                expand_sha512(OTHER, b"safelight/vault/1 root", 32),
                root_info,
                _frame(root, metadata=True),
                "root",
            ),
        },
        "page": {
            "key": KEY.hex(),
            "number": 0,
            "revision": 9,
            "sealed": _sealed(KEY, page_info, _frame(page, metadata=True), "page"),
            "slot": {"kind": 1, "flags": 1, "revision": 7, "id": RECORD.hex()},
        },
        "keyring_slot": {
            "kek": KEY.hex(),
            "no": 0,
            "keystore": 3,
            "entry": _stream("entry", 8).hex(),
            "epoch": 5,
            "root_key": OTHER.hex(),
            "body": struct.pack(">H8s", 3, _stream("entry", 8)).hex()
            + _sealed(KEY, slot_info, OTHER, "slot"),
        },
        "metadata": {
            "key": OTHER.hex(),
            "kind": 1,
            "revision": 7,
            "text": text,
            "sealed": _sealed(
                OTHER,
                context(1, VAULT, RECORD, 7),
                _frame(text.encode(), metadata=True),
                "metadata",
            ),
        },
        "blob": {
            "blob_key": KEY.hex(),
            "file": FILE.hex(),
            "kind": 3,
            "revision": 1,
            "length": len(picture),
            "shake128_of": "picture",
            "sha256": hashlib.sha256(
                seal_chunked(
                    file_key, file_info, _stream("salt", 24), _frame(picture, metadata=False)
                )
            ).hexdigest(),
            "salt": _stream("salt", 24).hex(),
        },
        "ids": {"vault": VAULT.hex(), "record": RECORD.hex()},
    }


def main() -> None:
    """Write the file beside this one."""
    target = Path(__file__).with_name("vault_v1.json")
    target.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
