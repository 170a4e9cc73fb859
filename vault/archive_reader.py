"""Open a safelight archive with nothing of safelight: `python archive_reader.py FILE DIR`.

Needs Python 3.9 or newer and `pip install cryptography` (44 or newer). The whole archive is checked
first. Then all files and one JSON a record are written, in plain, into DIR, a new or empty folder.
Exit status: 0 good, 2 usage, 3 wrong passphrase, 4 damaged or cut short, 8 the disk refused.
"""

import argparse
import getpass
import hashlib
import hmac
import itertools
import json
import os
import re
import struct
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["HEADER", "ReaderError", "main", "names", "records", "unlock"]

MAGIC = b"safelight archive\n"
# magic, format, archive id, Argon2: salt, KiB, passes, lanes; key check; SHA-256 of all before it
HEADER = struct.Struct(">18sH16s16sIBB32s32s")
ITEM = struct.Struct(">BI")  # kind, bytes of nonce, ciphertext and tag
RECORD, PIECE, END = 1, 2, 3
LIMITS = {RECORD: (2 << 20) + 28, PIECE: (1 << 20) + 28, END: 4096 + 28}  # bytes of an item
PIECE_BYTES = (1 << 20) - 8  # of a blob, in every piece but its last
ITEMS_LABEL, CHECK_LABEL = b"safelight/archive/1 items", b"safelight/archive/1 check"
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
USAGE, WRONG_PASSPHRASE, DAMAGED, STORAGE = 2, 3, 4, 8


class ReaderError(Exception):
    """The archive cannot be read; `status` is the exit status."""

    def __init__(self, message: str, status: int = DAMAGED) -> None:
        super().__init__(message)
        self.status = status


def unlock(header: bytes, passphrase: bytes) -> bytes:
    """Return the key of the items, given the file's first 122 bytes; raises ReaderError."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    if not header.startswith(MAGIC) and not MAGIC.startswith(header):
        raise ReaderError("this file is no safelight archive, or its start is damaged")
    if len(header) < HEADER.size:
        raise ReaderError("the archive is cut short")
    _magic, number, _id, salt, memory, passes, lanes, check, digest = HEADER.unpack(header)
    if hashlib.sha256(header[:-32]).digest() != digest:
        raise ReaderError("the archive's header is damaged")
    if number != 1:
        raise ReaderError(f"the archive has format {number}; this program knows format 1")
    if not (1 << 16 <= memory <= 1 << 20 and 3 <= passes <= 16 and 1 <= lanes <= 8):
        raise ReaderError("the archive asks for a cost of its passphrase that nobody writes")
    argon2 = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    root = argon2.derive(passphrase)
    if not hmac.compare_digest(_expand(root, CHECK_LABEL), check):
        raise ReaderError("this passphrase does not open the archive", WRONG_PASSPHRASE)
    return _expand(root, ITEMS_LABEL)


def _expand(key: bytes, label: bytes) -> bytes:
    return hmac.digest(key, label + b"\1", "sha512")[:32]  # HKDF-Expand's first block


def _items(stream: BinaryIO, header: bytes, key: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and payload of each item; the last is the end, and nothing is behind it."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    for number in itertools.count():
        head = stream.read(ITEM.size)
        if len(head) < ITEM.size:
            raise ReaderError("the archive is cut short")
        kind, length = ITEM.unpack(head)
        if not 28 < length <= LIMITS.get(kind, 0):
            raise ReaderError(f"item {number} of the archive has a kind or length of no item")
        sealed = stream.read(length)
        if len(sealed) < length:
            raise ReaderError("the archive is cut short")
        place = header + number.to_bytes(8, "big") + bytes((kind,))
        try:
            framed = AESGCM(key).decrypt(sealed[:12], sealed[12:], place)
        except InvalidTag:
            raise ReaderError(f"item {number} of the archive is damaged or misplaced") from None
        size = 8 + int.from_bytes(framed[:8], "big")
        if len(framed) != _padded(size, kind) or any(framed[size:]):
            raise ReaderError(f"item {number} of the archive is not padded as archives are")
        if kind == END and stream.read(1):
            raise ReaderError("something follows the end of the archive")
        yield kind, framed[8:size]


def _padded(size: int, kind: int) -> int:
    if kind != PIECE and size <= 4096:
        return -(-size // 256) * 256
    exponent = size.bit_length() - 1
    step = 1 << (exponent - exponent.bit_length())
    return -(-size // step) * step


def records(stream: BinaryIO, header: bytes, key: bytes) -> Iterator[tuple[Any, list[bytes]]]:
    """Yield each record: its JSON object, and its blobs' bytes in order; raises ReaderError."""
    source = _items(stream, header, key)
    found = {"records": 0, "pieces": 0, "bytes": 0}
    for kind, payload in source:
        if kind == END and payload == json.dumps(found, separators=(",", ":")).encode():
            return
        if kind != RECORD:
            raise ReaderError("the archive holds other data than its records and its end name")
        blobs: list[bytes] = []
        try:
            document = json.loads(payload)
            for blob in document["blobs"]:
                data, length = bytearray(), blob["length"]
                while len(data) < length:
                    follows, piece = next(source)
                    if follows != PIECE or len(piece) != min(PIECE_BYTES, length - len(data)):
                        raise ReaderError("the archive lacks a part of a record's data")
                    data += piece
                    found["pieces"] += 1
                if len(data) != length or hashlib.sha256(data).hexdigest() != blob["sha256"]:
                    raise ReaderError("a record's data is not what was archived")
                blobs.append(bytes(data))
            names(document)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ReaderError("the archive holds a record of a shape that nobody writes") from None
        found["records"] += 1
        found["bytes"] += sum(map(len, blobs))
        yield document, blobs


def names(document: Any) -> tuple[str, list[str]]:
    """Return the file names of a record's JSON and of its blobs: date and id, nothing typed."""
    stem = f"{document['created'][:10]}_{document['id']}"
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9a-f]{32}", stem):
        raise ValueError("the date or the id of a record is none")
    types = [blob["media_type"] for blob in document["blobs"]]
    files = [f"{stem}_{no}.{EXTENSIONS.get(each, 'bin')}" for no, each in enumerate(types, 1)]
    return f"{stem}.json", files


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(data)


def _unpack(stream: BinaryIO, folder: Path, passphrase: bytes) -> int:
    header = stream.read(HEADER.size)
    key = unlock(header, passphrase)
    number = sum(1 for _ in records(stream, header, key))  # all of it is checked before a byte
    folder.mkdir(mode=0o700, exist_ok=True)
    stream.seek(HEADER.size)
    for document, blobs in records(stream, header, key):
        name, files = names(document)
        for blob, file, data in zip(document["blobs"], files, blobs):  # noqa: B905 - Python 3.9
            _write(folder / file, data)
            blob["file"] = file
        _write(folder / name, json.dumps(document, ensure_ascii=False, indent=1).encode())
    return number


def _passphrase(file: "str | None") -> bytes:
    if file is None:
        text = getpass.getpass("passphrase of the archive: ")
    else:
        text = Path(file).read_bytes().split(b"\n", 1)[0].rstrip(b"\r").decode()
    return unicodedata.normalize("NFC", text).encode()


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Read the command line, check and unpack the archive; return the exit status."""
    parser = argparse.ArgumentParser(description="Open a safelight archive.")
    parser.add_argument("file", help="the archive")
    parser.add_argument("folder", help="a new or empty folder for what is in it, in plain")
    parser.add_argument("--passphrase-file", help="read the passphrase from its first line")
    given = parser.parse_args(arguments)
    folder, status = Path(given.folder), USAGE
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            parser.error(f"{folder} is not a new or empty folder")
        with Path(given.file).open("rb") as stream:
            passphrase = _passphrase(given.passphrase_file)
            status = STORAGE
            number = _unpack(stream, folder, passphrase)
    except (ReaderError, OSError, UnicodeError, ImportError, MemoryError) as error:
        sys.stderr.write(f"archive_reader: {error}\n")
        return getattr(error, "status", status)
    sys.stderr.write(f"{number} records are written in plain to {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
