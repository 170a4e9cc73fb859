"""Serve the gallery from the command's own process, on a socket that is listening already."""

import socket
import sys
from typing import TYPE_CHECKING

from safelight.gallery.address import Address

if TYPE_CHECKING:
    import uvicorn

    from safelight.gallery.gallery import Gallery

__all__ = ["address_of", "make_server"]

KEEP_ALIVE = 60  # seconds that a browser's connections stay open between two requests
# Seconds that a thread may hold the interpreter while another waits; Python's own 5 ms are paid at
# each hand-over while the catalogue reads, and a screen of thumbnails has hundreds.
HAND_OVER = 0.0005
GOODBYE = 2  # seconds that open event streams get when the server stops


def make_server(gallery: "Gallery", address: Address, listener: socket.socket) -> "uvicorn.Server":
    """Return a server for the gallery: `run(sockets=[listener])` serves until it is stopped.

    It writes no log: an access log would tell what was searched for.
    """
    import uvicorn

    from safelight.gallery.app import create_app
    from safelight.gallery.protocol import BoundedProtocol

    sys.setswitchinterval(HAND_OVER)
    authority = address.authority(listener.getsockname()[1])
    gallery.hosts = frozenset({authority})
    gallery.origin = f"{address.scheme}://{authority}"
    config = uvicorn.Config(
        create_app(gallery),
        access_log=False,
        log_config=None,
        log_level="critical",
        lifespan="on",
        ws="none",
        http=BoundedProtocol,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GOODBYE,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    return uvicorn.Server(config)


def address_of(gallery: "Gallery") -> str:
    """Return the address to open: the token lies behind the #, which no request carries."""
    return f"{gallery.origin}/#token={gallery.sessions.token}"
