"""Take a multipart form apart in memory (RFC 7578): nothing is ever spooled to a file."""

import re
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Final

from safelight.exits import UsageError

__all__ = ["Part", "parse_multipart"]

MAX_PARTS: Final = 64
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form. data: its bytes as they were sent."""

    name: str
    data: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Return the field as text; raises UsageError for bytes that are none."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"the field '{self.name}' is no UTF-8 text") from None


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """Give the form's fields in order. Raises UsageError for what is no such form."""
    header = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n", True
    )
    boundary = header.get_boundary("")
    if header.get_content_type() != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
        raise UsageError("this takes a form as multipart/form-data")
    mark = b"\r\n--" + boundary.encode()
    pieces = (b"\r\n" + body).split(mark, MAX_PARTS + 2)
    if len(pieces) < 3 or len(pieces) > MAX_PARTS + 2 or not pieces[-1].startswith(b"--"):
        raise UsageError(f"this is no whole form of at most {MAX_PARTS} fields")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, gap, data = piece.partition(b"\r\n\r\n")
    if not gap or not head.startswith(b"\r\n") or len(head) > 8192:
        raise UsageError("a field of the form has no header")
    fields = BytesParser(policy=HTTP).parsebytes(head[2:] + gap, True)
    name = fields.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise UsageError("a field of the form has no name")
    return Part(name, data)
