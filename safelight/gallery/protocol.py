"""HTTP/1.1 by llhttp, for this user alone, with a bound on what a request may say before its body.

uvicorn's own class reads heads of any length into memory; of its other parser, which bounds them,
a screen of thumbnails pays for every line in Python.
"""

from asyncio import Transport
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from safelight.gallery.peers import is_stranger

__all__ = ["HEAD_BYTES", "BoundedProtocol"]

HEAD_BYTES: Final = 16 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on other users of this machine; answers 400 to a head of more than `HEAD_BYTES`."""

    _head = 0  # bytes of the head that is being read, of names and values
    _unread = 0  # bytes that came since it began; the parser keeps a line until it is whole

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take a connection, or hang up before anything is read."""
        super().connection_made(transport)
        own, peer = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        if own and peer and is_stranger(own[:2], peer[:2]):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        self._unread += len(data)
        if self._unread - len(data) > HEAD_BYTES:  # and still no end of it
            self.send_400_response("The head of this request is too long.")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop counting: bodies have bounds of their own."""
        super().on_headers_complete()
        self._unread = 0

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop counting: the next head may begin at once."""
        self._unread = 0
        super().on_message_complete()

    def _count(self, length: int) -> None:
        self._head += length
        if self._head > HEAD_BYTES:
            raise ValueError("the head of a request is too long")  # which the parser ends with
