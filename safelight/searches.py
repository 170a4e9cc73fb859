"""Searches that a person keeps by a name, sealed like everything else."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = ["Search", "Searches"]

MAX_NAME = 64  # characters
MAX_SEARCHES = 200
TYPE = "search"  # what tells these records from other presets


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search line and the name that it is kept by."""

    id: str
    name: str
    query: str = field(repr=False)


class Searches:
    """The kept searches of an open vault: records of the kind `preset`, a name once."""

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault

    def all(self) -> list[Search]:
        """Return the kept searches by name."""
        found = [
            Search(id=record.id, name=record.metadata["name"], query=record.metadata["query"])
            for record in self._records()
        ]
        return sorted(found, key=lambda search: search.name.casefold())

    def keep(self, name: str, query: str) -> None:
        """Seal a search in the place of one of the same name. Raises UsageError.

        The caller has parsed the query.
        """
        from vault import Draft, Kind

        name = name.strip()
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise UsageError(f"a name has 1 to {MAX_NAME} printable characters")
        there = list(self._records())
        old = [record.id for record in there if record.metadata["name"] == name]
        if len(there) - len(old) >= MAX_SEARCHES:
            raise UsageError(f"at most {MAX_SEARCHES} searches are kept")
        metadata = {"type": TYPE, "name": name, "query": query}
        self._vault.add([Draft(kind=Kind.PRESET, metadata=metadata)])
        if old:  # only now: a crash between the two leaves two, and never none
            self._vault.delete(old)

    def remove(self, record_id: str) -> None:
        """Remove a kept search; nothing where it is none, or gone already."""
        if record_id in {record.id for record in self._records()}:
            self._vault.delete([record_id])

    def _records(self) -> "list[Record]":
        from vault import Kind

        return [
            record
            for record in self._vault.list(kinds=(Kind.PRESET,))
            if record.metadata.get("type") == TYPE
        ]
