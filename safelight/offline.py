"""Keep the process offline, and count what tried not to be.

An audit hook sees every connect, bind to a name and look-up that Python code makes. AF_UNIX (the
session bus) and loopback pass; anything else raises, but for the hosts that `models pull` opens
while it runs. Native code is not seen by the hook: the proof for that is the end-to-end test in an
empty network namespace and its trace of connects.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from safelight.exits import ApplicationError

__all__ = ["QUIET", "NetworkWatch", "OfflineError", "is_loopback", "watch_network"]

# Set before the libraries are imported; each names the library that would call home (ENGINE.md 6).
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
}

# Audit events whose arguments carry an address: (event, position of the address)
_ADDRESSED = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.bind": 1}
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


class OfflineError(ApplicationError):
    """Something in this process asked for the network."""


class NetworkWatch:
    """Count what this process did with sockets: local, outside while opened, refused."""

    def __init__(self) -> None:
        self.local = 0
        self.outside = 0
        self.refused = 0
        self._hosts: set[str] = set()
        self._listening: set[str] = set()

    def allow_listening(self, host: str) -> None:
        """Let this process listen on one more address than its own machine's."""
        self._listening.add(host)

    @contextmanager
    def opened(self) -> "Iterator[Callable[[str], None]]":
        """Give a function that opens one host by its name, until the block ends.

        Look-ups pass for those hosts alone. An address says nothing of its host, so that while any
        host is open a connect to every address passes. `models pull` alone calls this.
        """
        before = os.environ.get("HF_HUB_OFFLINE")
        os.environ["HF_HUB_OFFLINE"] = "0"  # read when huggingface_hub is first imported
        try:
            yield self._hosts.add
        finally:
            self._hosts.clear()
            os.environ.pop("HF_HUB_OFFLINE")
            if before is not None:
                os.environ["HF_HUB_OFFLINE"] = before

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        """Judge one audit event; raises OfflineError where it would leave this machine."""
        if event in _ADDRESSED:
            position = _ADDRESSED[event]
            self._judge(args[position] if len(args) > position else None, event)
        elif event in _LOOKUPS:
            host = args[0] if args else None
            self._judge((host,) if host is not None else None, event)

    def _judge(self, address: object, event: str) -> None:
        if _is_local(address):
            self.local += 1
            return
        if self._is_open(address, event):
            self.outside += 1
            return
        self.refused += 1
        raise OfflineError(
            f"a library asked for the network ({event}) and was refused",
            hint="safelight works offline; only `models pull` may use the network",
        )

    def _is_open(self, address: object, event: str) -> bool:
        if event in _LOOKUPS:
            return _host(address) in self._hosts | self._listening
        if event == "socket.bind":
            return _host(address) in self._listening
        return event == "socket.connect" and bool(self._hosts)


def watch_network() -> NetworkWatch:
    """Silence telemetry and watch sockets until the process ends (hooks cannot be removed)."""
    os.environ.update(QUIET)
    watch = NetworkWatch()
    sys.addaudithook(watch.hook)
    return watch


def _is_local(address: object) -> bool:
    """Judge an address as the audit events give it; AF_UNIX, AF_NETLINK and loopback are local."""
    if address is None or isinstance(address, (str, bytes, int)):
        return True  # no address, a path of AF_UNIX, or an in-kernel family
    if isinstance(address, tuple) and address and isinstance(address[0], int):
        return True  # (pid, groups) of AF_NETLINK
    return is_loopback(_host(address))


def _host(address: object) -> str:
    host = address[0] if isinstance(address, tuple) and address else ""
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
