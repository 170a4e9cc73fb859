"""The key store that ships for tests: a dictionary with the faults of real ones on request."""

import time
from collections.abc import Collection

from vault.errors import KeyStoreBrokenError, KeyStoreLockedError
from vault.keystore.entry import check_entry, check_value, refuse_other_value

__all__ = ["MemoryKeyStore"]

FAULTS = frozenset({"change_set", "fail_delete", "fail_set", "forget_set", "keep_deleted"})


class MemoryKeyStore:
    """Keep entries in this object only. Number 0: never found, never opened by number.

    entries: the dictionary itself, which tests may share between stores, look at or spoil.
    locked: answer every call with KeyStoreLockedError while true; may be set at any time.
    delay: seconds that each call takes. faults: which of these happens, and may be changed:
    `fail_set` and `fail_delete` raise KeyStoreBrokenError, `forget_set` accepts and drops,
    `change_set` stores another value, `keep_deleted` says that it deleted and did not.
    """

    number = 0
    name = "memory (for tests)"

    def __init__(
        self,
        entries: dict[str, bytes] | None = None,
        *,
        locked: bool = False,
        delay: float = 0.0,
        faults: Collection[str] = (),
    ) -> None:
        unknown = set(faults) - FAULTS
        if unknown:
            raise ValueError(f"unknown faults {sorted(unknown)}; allowed: {sorted(FAULTS)}")
        self.entries = {} if entries is None else entries
        self.locked = locked
        self.delay = delay
        self.faults = set(faults)

    def get(self, entry: str) -> bytes | None:
        """Return the value of `entry`, or None if there is none."""
        check_entry(entry)
        self._answer()
        return self.entries.get(entry)

    def set(self, entry: str, value: bytes) -> None:
        """Store `value` under `entry`, read it back and compare."""
        check_entry(entry)
        check_value(value)
        self._answer()
        if "fail_set" in self.faults:
            raise KeyStoreBrokenError(f"{self.name} refused to store a key")
        if "forget_set" not in self.faults:
            stored = value[::-1] + b"?" if "change_set" in self.faults else value
            self.entries[entry] = bytes(stored)
        refuse_other_value(value, self.entries.get(entry), self.name)

    def delete(self, entry: str) -> None:
        """Remove `entry` if it is there, and verify that it is gone."""
        check_entry(entry)
        self._answer()
        if "fail_delete" in self.faults:
            raise KeyStoreBrokenError(f"{self.name} refused to delete a key")
        if "keep_deleted" not in self.faults:
            self.entries.pop(entry, None)
        if entry in self.entries:
            raise KeyStoreBrokenError(f"{self.name} still holds a key that was deleted")

    def __repr__(self) -> str:
        return f"MemoryKeyStore({len(self.entries)} entries)"

    def _answer(self) -> None:
        if self.delay:
            time.sleep(self.delay)
        if self.locked:
            raise KeyStoreLockedError(f"{self.name} is locked", hint="Unlock it and try again.")
