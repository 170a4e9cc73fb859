"""The machine as a result describes it: models, sizes and versions, under a pseudonym."""

import platform
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.cards import Card, cards
from benchmarks.document import Machine
from benchmarks.machine import machine
from benchmarks.pseudonym import Pseudonym

__all__ = ["describe", "named", "plain", "reason"]


def describe(pseudonym: Pseudonym, libraries: Mapping[str, str] | None = None) -> Machine:
    """Describe this machine; libraries: more of them, name and version, than are looked up."""
    facts = machine()
    found = list(cards())
    parts = {
        "cpu": plain(facts["cpu"]),
        "cpu_family_model": facts["cpu_family_model"].replace("/", "."),
        "cores": facts["cores"] or 0,
        "memory_gb": facts["memory_gb"],
        "gpus": tuple(plain(card.name) for card in found),
    }
    return Machine(
        id=pseudonym.machine_id(parts),
        instructions=tuple(facts["instructions"]),
        gpu_driver=plain(_driver(found)),
        system=plain(_system()),
        kernel=plain(_kernel()),
        python=facts["python"],
        libraries={
            name: named(version)
            for name, version in sorted((facts["libraries"] | (libraries or {})).items())
        },
        **parts,
    )


def plain(text: Any) -> str:
    """Give a vendor's name as a result may hold it: no slashes, at most 200 characters."""
    return re.sub(r"[/\\@\x00-\x1f]+", " ", str(text)).strip()[:200]


def reason(error: Any) -> str:
    """Give an error's sentence without the paths in it, which name folders of somebody's."""
    words = (word for word in str(error).split() if "/" not in word and "\\" not in word)
    return plain(" ".join(words))


def named(text: Any) -> str:
    """Give a version or short name as a result may hold it: letters, digits and few signs."""
    return re.sub(r"[^A-Za-z0-9 ._,:+%()=-]+", "-", str(text))[:80]


def _driver(found: list[Card]) -> str:
    return found[0].driver if found else ""


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name} {platform.machine()}"


def _kernel() -> str:
    """Give the kernel's version without the words that a builder may have put behind it."""
    found = re.match(r"[\d.]+", platform.release())
    return found.group() if found else ""
