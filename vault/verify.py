"""Check a vault, and note that it was done; `vault.examination` looks."""

from contextlib import suppress
from dataclasses import dataclass

from vault.errors import StorageError
from vault.examination import Cancelled, Stage, examine, never, unseen
from vault.page import Problem
from vault.records import timestamp
from vault.session import Session

__all__ = ["VerifyReport", "verify"]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a check found. orphans: sealed files that no record names; they are no problem.

    records and blobs: how many were looked at. complete: false when it was cancelled.
    """

    records: int
    blobs: int
    problems: tuple[Problem, ...]
    orphans: int
    checked: str
    deep: bool
    complete: bool

    @property
    def damaged_records(self) -> int:
        """Return how many records have a problem."""
        return len({problem.record_id for problem in self.problems} - {None})


def verify(
    session: Session,
    *,
    deep: bool = False,
    progress: Stage = unseen,
    cancelled: Cancelled = never,
) -> VerifyReport:
    """Check the whole vault while others use it; deep: open every sealed file, not only its head.

    Raises DamagedError only when the root itself does not open. The vault notes that it was done;
    a backup stays as it is, so that the next one does not take it for a vault that went on.
    """
    noting = not session.read_only and not session.layout.is_untouched_backup()
    seen = examine(session, deep=deep, hold=session.shared, progress=progress, cancelled=cancelled)
    problems = (*seen.problems, *seen.beside)
    checked = timestamp(session.clock())
    if seen.complete and seen.whole and noting:
        note = {"when": checked, "deep": deep, "problems": len(problems)}
        with suppress(StorageError):  # a full disk must not cost the person the report
            with session.shared(), session.ledger.writing() as change:
                change.note("verified", note)
            session.anchor_in_time()
    return VerifyReport(
        records=seen.records,
        blobs=seen.blobs,
        problems=problems,
        orphans=len(seen.orphans),
        checked=checked,
        deep=deep,
        complete=seen.complete,
    )
