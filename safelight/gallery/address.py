"""Where the gallery listens: an address of this machine alone, unless a person says otherwise."""

import secrets
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from safelight.exits import UsageError

__all__ = ["Address", "check_tls", "listen", "random_loopback", "refuse_open_host"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A host as the browser writes it, a port (0: any free one), and TLS's two files or None."""

    host: str
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None

    @property
    def scheme(self) -> str:
        """Return http or https."""
        return "http" if self.certificate is None else "https"

    def authority(self, port: int) -> str:
        """Return what the `Host` header says when `port` is the one that is listened on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 80 if self.certificate is None else 443
        return host if port == usual else f"{host}:{port}"


def random_loopback() -> str:
    """Return an address of this machine that no other program uses by chance.

    Cookies know no ports: under 127.0.0.1 the browser would show ours to every other program that
    it opens there. It is no secret: other users can look it up, and listen there on another port.
    What keeps them out is `peers`. Linux has all of 127.0.0.0/8, other systems 127.0.0.1 only.
    """
    if sys.platform != "linux":
        return "127.0.0.1"
    return f"127.{secrets.randbelow(255)}.{secrets.randbelow(255)}.{1 + secrets.randbelow(253)}"


def refuse_open_host(address: Address) -> bool:
    """Say whether other machines can reach the address; raises UsageError where TLS is missing."""
    try:
        number = ip_address(address.host)
    except ValueError:
        local = address.host == "localhost"
    else:
        local = number.is_loopback
        if number.is_unspecified:
            raise UsageError(
                f"--host {address.host} names no address: the gallery answers to exactly one",
                hint="give the address or name that people will type into their browsers",
            )
    if (address.certificate is None) != (address.key is None):
        raise UsageError("--certificate and --key belong together: give both")
    if not local and address.certificate is None:
        raise UsageError(
            f"other machines can reach {address.host}: that needs TLS, and a passphrase to unlock",
            hint="give --certificate F --key F (PEM), or leave --host out",
        )
    return not local


def listen(address: Address, allow: Callable[[str], None] = lambda _: None) -> socket.socket:
    """Return a socket that listens there; raises UsageError when it cannot be had.

    allow: is told the numbers that the host's name stands for, before they are used.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        allow(str(place[0]))
        # The protocol by its number: asyncio turns Nagle's delay off for no other socket, and each
        # answer would wait 40 ms for the browser to acknowledge its head.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(
            f"the gallery cannot listen on {address.host} port {address.port}: {error.strerror}",
            hint="another program may use it; leave --port out to take any free one",
        ) from error
    return listener


def check_tls(address: Address) -> None:
    """Raise UsageError unless certificate and key are there and belong together."""
    if address.certificate is None or address.key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            address.certificate, address.key
        )
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
        raise UsageError(f"the certificate and key cannot be used: {reason}") from error
