"""No result names who made it: host, user, paths, addresses, serial numbers."""

import getpass
import os
import re
import socket
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.errors import ResultError

__all__ = ["check_private", "names_of_this_machine"]

SHORTEST = 3  # letters; shorter names would be found within ordinary words
# What every machine or container may be called, and every result may say.
ORDINARY = frozenset({"root", "user", "linux", "localhost", "safelight", "python"})
_PATTERNS = {
    "a path": re.compile(r"(?:^|\s)(?:/[\w.-]+/|~/|[A-Za-z]:\\)"),
    "an address": re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b(?!\.)|[\w.-]+@[\w-]+\.\w"),
    "a hardware address": re.compile(r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b"),
}
_MACHINE_ID = Path("/etc/machine-id")


def names_of_this_machine() -> frozenset[str]:
    """Give what names this machine or its user: host, full and short, user, home's last part, ids.

    They are only compared with; nothing keeps them.
    """
    found = {socket.gethostname(), os.environ.get("HOSTNAME", ""), Path.home().name}
    found.add(f"{uuid.getnode():012x}")
    try:
        found.add(getpass.getuser())
        found.add(_MACHINE_ID.read_text("ascii").strip())
    except (OSError, KeyError, UnicodeDecodeError):
        pass  # there is none, or nobody may read it: then a result cannot say it either
    found |= {name.partition(".")[0] for name in found}
    return frozenset(name for name in found if len(name) >= SHORTEST and name not in ORDINARY)


def check_private(document: Any, names: Iterable[str]) -> None:
    """Raise ResultError where a text or key of the document holds one of the names, a path or an
    address. The message names the field, not what it held.
    """
    wanted = [
        re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
        for name in names
    ]
    for place, text in _texts(document, ""):
        what = next((kind for kind, pattern in _PATTERNS.items() if pattern.search(text)), "")
        if not what and any(pattern.search(text) for pattern in wanted):
            what = "a name of this machine or its user"
        if what:
            raise ResultError(
                f"the result would hold {what} in {place}; it was not written",
                hint="this is a fault of safelight, or a driver that calls itself by your name",
            )


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield place or "the document", str(key)
            yield from _texts(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _texts(each, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value
