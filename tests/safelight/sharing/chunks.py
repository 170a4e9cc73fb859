"""Take picture files apart without a picture library: what is in them beside pixels."""

import struct

__all__ = ["parts"]


def parts(data: bytes) -> list[tuple[str, bytes]]:
    """Give name and content of each chunk or segment that is not needed to draw the picture."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return [part for part in _png(data) if part[0] not in {"IHDR", "IDAT", "IEND"}]
    if data[:4] == b"RIFF":
        return [part for part in _webp(data) if part[0] not in {"VP8 ", "VP8L", "VP8X"}]
    return [part for part in _jpeg(data) if part[0] in {f"APP{k}" for k in range(1, 16)} | {"COM"}]


def _png(data):
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8].decode(), data[at + 8 : at + 8 + length]
        at += 12 + length
    assert at == len(data)  # nothing hangs behind the end


def _webp(data):
    at, end = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    assert end == len(data)
    while at < end:
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4].decode(), data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _jpeg(data):
    at = 2
    assert data.endswith(b"\xff\xd9")
    while data[at + 1] != 0xDA:
        name = f"APP{data[at + 1] - 0xE0}" if 0xE0 <= data[at + 1] <= 0xEF else "other"
        name = "COM" if data[at + 1] == 0xFE else name
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield name, data[at + 4 : at + 2 + length]
        at += 2 + length
