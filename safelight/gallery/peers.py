"""Who is at the other end of a connection within this machine: Linux says whose each socket is.

A loopback address is no secret, and a browser shows a cookie to every port of its host: another
user of the machine can listen beside the gallery and be shown the session's. So a cookie alone lets
nobody in from there; the socket at the other end must be of the same user.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

__all__ = ["is_stranger", "trusted_uids", "uid_of_peer"]

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
UID, INODE = 7, 9  # columns of a row
Place = tuple[str, int]  # address and port


def trusted_uids() -> frozenset[int]:
    """Return whose programs may ask: ours, and root's, who can do everything without asking."""
    return frozenset({0, os.geteuid()})


def is_stranger(own: Place, peer: Place) -> bool:
    """Say whether another user's program connected to `own`, a loopback address, from `peer`.

    False where the system does not tell. A peer of which nothing is listed has gone, or wants to
    seem so. Takes milliseconds, however few connections there are: the kernel goes through all of
    its table, so it is done once a connection.
    """
    if sys.platform != "linux" or not _plain(own[0]).is_loopback:
        return False
    for _ in range(2):  # a row can be passed over while others come and go
        uid = uid_of_peer(_rows(), own, peer)
        if uid is not None:
            return uid not in trusted_uids()
    # Some sandboxes have an empty table; in every other one our own listener is.
    return any(f" {end} " in row for row in _rows() for end in _written(own))


def uid_of_peer(rows: Iterable[str], own: Place, peer: Place) -> int | None:
    """Find whose socket is at `peer`, connected to `own`; None where no row says so.

    rows: lines of /proc/net/tcp and tcp6. A socket that its program has closed is listed as root's
    until the kernel is done with it: rows without an inode do not count.
    """
    wanted = [
        f" {there} {here} " for there, here in zip(_written(peer), _written(own), strict=False)
    ]
    for row in rows:
        if any(ends in row for ends in wanted):
            columns = row.split()
            if len(columns) > INODE and columns[INODE] != "0":
                return int(columns[UID])
    return None


def _rows() -> Iterator[str]:
    for path in TABLES:
        with suppress(OSError), path.open(encoding="ascii") as table:  # or there is no IPv6
            yield from table


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Return the address; of an IPv4 address in IPv6's clothes, the IPv4 address."""
    number = ip_address(address)
    return getattr(number, "ipv4_mapped", None) or number


def _written(place: Place) -> tuple[str, ...]:
    """Write a place as the tables do: each 32 bits in host order. IPv4 may be in either table."""
    number = _plain(place[0])
    forms = [number.packed]
    if isinstance(number, IPv4Address):
        forms.append(bytes(10) + b"\xff\xff" + number.packed)
    return tuple(f"{_hex(packed)}:{place[1]:04X}" for packed in forms)


def _hex(packed: bytes) -> str:
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
