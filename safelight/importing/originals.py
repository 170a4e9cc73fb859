"""Remove originals whose bytes the vault holds; only when a person asked for it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.exits import UsageError
from safelight.importing.folder import read_whole
from safelight.importing.importer import Duplicate, Taken

if TYPE_CHECKING:
    from vault import Vault

__all__ = ["REMAINS", "remove_originals"]

REMAINS = (
    "Removing a file does not shred it: an SSD keeps old blocks until it needs them, file systems "
    "keep journals and snapshots, and backups, cloud copies and thumbnails of other programs stay."
)


def remove_originals(
    vault: "Vault", folder: Path, imported: Iterable[Taken | Duplicate]
) -> Iterator[tuple[str, str]]:
    """Remove each file if the vault's copy has the very bytes that it has now.

    Yields the file's name and '' or the reason why it stays. Raises what the vault raises.
    """
    for each in imported:
        path = folder / each.name
        try:
            data, _ = read_whole(path)
            if vault.read(each.record_id, "picture") != data:
                yield each.name, "it has changed since it was imported"
                continue
            path.unlink()
        except FileNotFoundError:
            continue
        except (OSError, UsageError) as error:
            yield each.name, getattr(error, "strerror", None) or str(error)
            continue
        yield each.name, ""
