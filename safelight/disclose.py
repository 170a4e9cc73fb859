"""The one door through which plaintext leaves the vault; it records what left, when and how."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = ["disclose"]

MAX_NOTES = 100  # disclosures kept a record; older ones make room


def disclose(
    vault: "Vault",
    record_id: str,
    sink: Callable[["Record", bytearray], None],
    *,
    way: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> "Record":
    """Open a record's picture, hand the bytes to `sink`, and note that they left.

    way: how they left (`reveal`, later `share`, `zip`, `api`), never where to: a path can tell as
    much as a prompt. The note is written before the bytes leave, so that a crash between the two
    over-reports and never under-reports. Raises what the vault raises, and what the sink raises.
    """
    data = vault.read(record_id, "picture")
    moment = clock().isoformat(timespec="milliseconds")

    def note(metadata: dict[str, Any]) -> dict[str, Any]:
        notes = [*metadata.get("disclosed", []), {"when": moment, "way": way}]
        return metadata | {"disclosed": notes[-MAX_NOTES:]}

    # On read-only media nothing can be noted; the callers say so.
    record = vault.get(record_id) if vault.read_only else vault.edit(record_id, note)
    sink(record, data)
    return record
