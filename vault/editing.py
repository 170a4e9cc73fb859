"""Edit what records say: one by one, or many in one transaction; each change is a revision."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vault.envelope import record_of
from vault.records import Metadata, Record
from vault.sealed_record import Opened, SealedRecord, seal_metadata
from vault.session import Session

__all__ = ["Edit", "edit", "edit_all", "mark"]

Edit = Callable[[dict[str, Any]], Mapping[str, Any]]  # from an application's metadata to the new


def edit(session: Session, record_id: str, change: Edit) -> Record:
    """Replace a record's metadata; `change` is asked again when another program was faster."""
    session.require_writable()
    while True:
        with session.shared(), session.ledger.reading():
            opened = session.find(record_id)
        metadata = Metadata.decode(opened.text)
        data = dict(change(Metadata.decode(opened.text).data))
        revised = _revised(opened, replace(metadata, data=data))
        with session.shared(), session.ledger.writing() as writing:
            if session.find(record_id).slot == opened.slot:
                writing.put(opened.position, _sealed(session, revised))
                break
    session.anchor_in_time()
    return record_of(revised)


def edit_all(session: Session, changes: Mapping[str, Edit]) -> list[Record]:
    """Edit records, each by its own change, in one transaction."""
    by_id = {record_id.lower(): change for record_id, change in changes.items()}

    def edited(record_id: str, metadata: Metadata) -> Metadata:
        return replace(metadata, data=dict(by_id[record_id](metadata.data)))

    return _rewrite(session, by_id, edited)


def mark(session: Session, ids: Sequence[str], trashed: str | None) -> list[Record]:
    """Put records into the trash at that moment, or take them out of it (None)."""

    def marked(_id: str, metadata: Metadata) -> Metadata:
        same = (metadata.trashed is None) == (trashed is None)
        return metadata if same else replace(metadata, trashed=trashed)

    return _rewrite(session, dict.fromkeys(map(str.lower, ids)), marked)


def _rewrite(
    session: Session, ids: Iterable[str], rewrite: Callable[[str, Metadata], Metadata]
) -> list[Record]:
    """Put what `rewrite` makes of each record's metadata in its place, all of them or none.

    What it leaves as it was is not sealed again.
    """
    session.require_writable()
    records: list[Record] = []
    with session.shared(), session.ledger.writing() as writing:
        for record_id in ids:
            opened = session.find(record_id)
            metadata = Metadata.decode(opened.text)
            rewritten = rewrite(record_id, Metadata.decode(opened.text))
            if rewritten != metadata:
                opened = _revised(opened, rewritten)
                writing.put(opened.position, _sealed(session, opened))
            records.append(record_of(opened))
    session.anchor_in_time()
    return records


def _revised(opened: Opened, metadata: Metadata) -> Opened:
    slot = opened.slot.revised(trashed=metadata.trashed is not None)
    return Opened(opened.position, slot, metadata.encode())


def _sealed(session: Session, opened: Opened) -> SealedRecord:
    return seal_metadata(session.ledger.vault_id, opened.slot, opened.text)
