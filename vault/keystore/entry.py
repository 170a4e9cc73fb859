"""What lies in a key store: names of entries, and values that come back as they were set."""

import re

from vault.errors import BadValueError, KeyStoreBrokenError

__all__ = [
    "USERNAME",
    "anchor_entry",
    "check_entry",
    "check_value",
    "kek_entry",
    "refuse_other_value",
]

# One entry a service: with two user names in one service Windows moves entries about.
USERNAME = "safelight"
# The name may come from a vault's index, which anyone with the folder can write.
ENTRY = re.compile(r"safelight\.vault\.[0-9a-f]{32}\.(?:kek\.[0-9a-f]{16}|anchor)")
LONGEST_VALUE = 512  # bytes; Windows holds 2560, and hexadecimal UTF-16 takes 4 a byte


def kek_entry(vault_id: bytes, name: bytes) -> str:
    """Name the entry of one KEK: `vault_id` has 16 bytes, `name` 8 random ones."""
    return check_entry(f"safelight.vault.{vault_id.hex()}.kek.{name.hex()}")


def anchor_entry(vault_id: bytes) -> str:
    """Name the entry of the anchor of the vault `vault_id`, 16 bytes."""
    return check_entry(f"safelight.vault.{vault_id.hex()}.anchor")


def check_entry(entry: str) -> str:
    """Return `entry` if it names an entry of a vault, else raise BadValueError."""
    if not ENTRY.fullmatch(entry):
        raise BadValueError("this is not the name of a key store entry of a vault")
    return entry


def check_value(value: bytes) -> bytes:
    """Return `value` if a key store can hold it, 1 to 512 bytes, else raise BadValueError."""
    if not 1 <= len(value) <= LONGEST_VALUE:
        raise BadValueError(f"a key store entry holds 1 to {LONGEST_VALUE} bytes, not {len(value)}")
    return value


def refuse_other_value(value: bytes, found: bytes | None, store: str) -> None:
    """Raise KeyStoreBrokenError unless `found`, read back from `store`, is what was set."""
    if found is None:
        raise KeyStoreBrokenError(
            f"{store} accepted a key and did not keep it",
            hint="Nothing was locked with that key. Repair or replace the key store first.",
        )
    if found != value:
        raise KeyStoreBrokenError(
            f"{store} gave back another key than the one it was given",
            hint="Is another program writing to the same entry? Try again.",
        )
