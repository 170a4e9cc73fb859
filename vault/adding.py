"""Add records: sealed, their files written beside that, and committed when those are durable."""

from collections.abc import Sequence

from vault.envelope import record_of, seal_draft
from vault.errors import BadValueError
from vault.records import Draft, Record, timestamp
from vault.sealed_record import Opened
from vault.session import Session

__all__ = ["DRAFTS_A_TRANSACTION", "add"]

DRAFTS_A_TRANSACTION = 16


def add(session: Session, drafts: Sequence[Draft]) -> list[Record]:
    """Seal and write up to 16 records in one transaction; raises as `Vault.add` says."""
    if not 1 <= len(drafts) <= DRAFTS_A_TRANSACTION:
        raise BadValueError(f"add takes 1 to {DRAFTS_A_TRANSACTION} drafts, got {len(drafts)}")
    session.require_writable()
    created, vault_id = timestamp(session.clock()), session.ledger.vault_id
    *first, last = drafts
    files: list[tuple[bytes, bytearray]] = []
    sealed = [
        seal_draft(vault_id, draft, created, lambda name, data: files.append((name, data)))
        for draft in first
    ]
    records: list[Record] = []
    with session.shared():
        writing = session.blobs.writing()
        try:
            writing.expect(sum(len(each.blobs) for each in drafts))
            for name, data in files:
                writing.put(name, data)
            # The last one, mostly the only one, is sealed while the disk is at work.
            sealed.append(seal_draft(vault_id, last, created, writing.put))
            with session.ledger.writing() as change:
                positions = [change.append(each.sealed) for each in sealed]

                def finish() -> None:
                    # What needs no disk comes here, while the files are being flushed.
                    for position, each in zip(positions, sealed, strict=True):
                        each.check()
                        records.append(record_of(Opened(position, each.sealed.slot, each.text)))
                    writing.finish()

                change.after(finish)
        except BaseException:
            # Behind COMMIT the records may be there, and need their files.
            if not (writing.finished and session.index.unsure):
                writing.undo()
            raise
    session.anchor_in_time()
    return records
