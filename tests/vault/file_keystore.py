"""A key store of files, so that processes of one test share it. It exists only here."""

import os
from pathlib import Path

from vault.errors import KeyStoreBrokenError
from vault.keystore.entry import check_entry, check_value

__all__ = ["FileKeyStore"]


class FileKeyStore:
    """Keep each entry in a file of one folder; number 0, as the shipped fake in memory."""

    number = 0
    name = "files (for tests)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def get(self, entry: str) -> bytes | None:
        try:
            return (self.folder / check_entry(entry)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            raise KeyStoreBrokenError(f"{self.name} did not answer") from None

    def set(self, entry: str, value: bytes) -> None:
        waiting = self.folder / f".{os.urandom(8).hex()}"
        try:
            waiting.write_bytes(check_value(value))
            waiting.rename(self.folder / check_entry(entry))
        except OSError:
            raise KeyStoreBrokenError(f"{self.name} refused to store a key") from None

    def delete(self, entry: str) -> None:
        try:
            (self.folder / check_entry(entry)).unlink(missing_ok=True)
        except OSError:
            raise KeyStoreBrokenError(f"{self.name} refused to delete a key") from None
