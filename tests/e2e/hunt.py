"""Hunt for a needle in every form in which a program might have written it down."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["forms", "found_in", "inflated", "written_files"]

MAX_INFLATED = 64 * 1024 * 1024  # bytes of one stream; a bomb is not what is hunted here
ZLIB_HEADS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
GZIP_HEAD = b"\x1f\x8b\x08"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def forms(needle: bytes) -> dict[str, bytes]:
    """Give the needle raw, as UTF-16 and UTF-32, as hex, and as base64 at each of three offsets."""
    text = needle.decode("utf-8", "surrogateescape")
    found = {"raw": needle, "hex": needle.hex().encode()}
    if text.isascii():
        found |= {
            name: text.encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        }
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + needle)
        # The first and last group mix with their neighbours: what is between them is the needle's.
        found[f"base64+{offset}"] = coded[4 if offset else 0 : -4]
    return found


def found_in(data: bytes, needle: bytes) -> list[str]:
    """Name the forms of the needle in the data, and in every compressed stream inside it."""
    wanted = forms(needle)
    places = [name for name, form in wanted.items() if form in data]
    for stream in inflated(data):
        places += [f"compressed {name}" for name, form in wanted.items() if form in stream]
    return places


def inflated(data: bytes) -> Iterator[bytes]:
    """Yield what every zlib and gzip stream in the data unpacks to, PNG pixels among them."""
    view = memoryview(data)  # whose rest is no copy: random bytes have a head in each 64 KiB
    for head, bits in [*((head, 15) for head in ZLIB_HEADS), (GZIP_HEAD, 31)]:
        start = data.find(head)
        while start >= 0:
            if (out := _unpack(view[start:], bits)) is not None:
                yield out
            start = data.find(head, start + 1)
    start = data.find(PNG_HEAD)
    while start >= 0:
        if (out := _unpack(_image_data(data, start), 15)) is not None:
            yield out
        start = data.find(PNG_HEAD, start + 1)


def _image_data(data: bytes, start: int) -> bytes:
    position, parts = start + len(PNG_HEAD), []
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += length + 12
    return b"".join(parts)


def _unpack(data: bytes | memoryview, bits: int) -> bytes | None:
    machine = zlib.decompressobj(bits)
    try:
        out = machine.decompress(data, MAX_INFLATED)
    except zlib.error:
        return None
    return out or None


def written_files(trace: str) -> set[Path]:
    """Give the absolute paths that an strace log shows as opened for writing, made or renamed."""
    paths = set()
    for line in trace.splitlines():
        call = line.split("(", 1)[0].split()[-1] if "(" in line else ""
        if call in ("open", "openat") and not any(
            flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT")
        ):
            continue
        if call in ("open", "openat", "creat", "rename", "renameat", "renameat2", "memfd_create"):
            names = line.split('"')[1::2]
            paths |= {Path(name) for name in names if name.startswith("/")}
    return paths
