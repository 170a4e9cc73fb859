"""Look after a vault as a whole: copy it, check it, say what lies where."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vault.session import Session

if TYPE_CHECKING:
    from vault.backup import BackupReport
    from vault.inventory import FileEntry
    from vault.verify import VerifyReport

__all__ = ["Care"]

Stage = Callable[[str, float], None]  # what is done now, and the fraction of the whole, 0 to 1


class Care:
    """The care of one open vault; restoring and repairing open one themselves."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def backup(
        self,
        target: Path,
        *,
        index_only: bool = False,
        deep: bool = False,
        progress: Stage = lambda _stage, _fraction: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> "BackupReport":
        """Copy the vault, consistent while others use it; again into the same folder: the news.

        deep: open every file that lies there already. progress(what, fraction 0 to 1).
        See `vault.backup.back_up`.
        """
        from vault.backup import back_up

        return back_up(
            self._session,
            target,
            index_only=index_only,
            deep=deep,
            progress=progress,
            cancelled=cancelled,
        )

    def verify(
        self,
        *,
        deep: bool = False,
        progress: Stage = lambda _stage, _fraction: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> "VerifyReport":
        """Look at every page, row and file; deep: open every file. See `vault.verify.verify`."""
        from vault.verify import verify

        return verify(self._session, deep=deep, progress=progress, cancelled=cancelled)

    def inventory(self, *, every: bool = False) -> "list[FileEntry]":
        """List every file of the vault: purpose, size, and what it gives away."""
        from vault.inventory import inventory

        return inventory(self._session, every=every)
