"""What deletes itself: the trash after its days, and, if asked, old or surplus pictures.

Nothing here deletes at once: surplus goes into the trash first, and leaves that days later. A
clock that leaps is not believed before a person says so; a machine set to 2100 deletes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime

from vault.context import Kind
from vault.deletion import delete
from vault.envelope import record_of
from vault.errors import BadValueError, DamagedError
from vault.keytree import TRASHED
from vault.records import Record, timestamp
from vault.sealed_record import Opened
from vault.session import Session

__all__ = [
    "Expiry",
    "Retention",
    "believe_clock",
    "expire",
    "retention_of",
    "set_retention",
    "trash_time",
]

HOUR = 3600.0  # seconds
DAY = 24 * HOUR
LEAP = 90 * DAY  # forward, since the vault was last looked after: a person confirms
SETBACK = 2 * DAY  # backward likewise: time zones and corrections stay below it
TRASH_DAYS = 7.0


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long records stay. None: no limit, which is the default but for the trash.

    trash_days: in the trash before a record is deleted. max_age_days, max_count, max_bytes:
    pictures beyond them go into the trash, the oldest first; `keep` of `expire` exempts some.
    max_bytes counts plaintext bytes of all files of a record.
    """

    trash_days: float | None = TRASH_DAYS
    max_age_days: float | None = None
    max_count: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < 1e15:
                raise BadValueError(f"{name} is {value}; a number from 0 up, or no limit at all")

    @property
    def limits_pictures(self) -> bool:
        """Say whether anything but the trash is limited."""
        return any(x is not None for x in (self.max_age_days, self.max_count, self.max_bytes))


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """What an `expire` did or would do: ids by what happened; waiting: why nothing did."""

    trashed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    waiting: str = ""


def retention_of(session: Session) -> Retention:
    """Return the policy that the vault holds."""
    with session.shared(), session.ledger.reading():
        noted = session.ledger.notes.get("retention", {})
    known = {each.name for each in fields(Retention)}
    try:
        return Retention(**{name: value for name, value in noted.items() if name in known})
    except (AttributeError, TypeError):
        raise DamagedError("the vault's retention policy is unreadable") from None


def set_retention(session: Session, retention: Retention) -> None:
    """Keep a policy in the vault."""
    session.require_writable()
    with session.shared(), session.ledger.writing() as change:
        change.note("retention", asdict(retention))


def believe_clock(session: Session) -> None:
    """Take the clock as it is, after a person looked at it."""
    _note_clock(session, session.clock())


def expire(
    session: Session,
    retention: Retention,
    keep: Callable[[Record], bool],
    trash: Callable[[list[str]], object] | None,
) -> Expiry:
    """Do what the policy says.

    keep: true exempts a record (favourites). trash: moves ids into the trash; None: nothing is
    done, only said. A record that somebody changes meanwhile, such as takes out of the trash,
    is not deleted.
    """
    now = session.clock()
    waiting = _suspicion(session, now)
    if waiting:
        return Expiry(waiting=waiting)
    surplus = list(_surplus(session, retention, keep, now)) if retention.limits_pictures else []
    days = retention.trash_days
    stale = {} if days is None else {each.position: each for each in _stale(session, days, now)}
    deleted = list(stale)
    if trash is not None:
        if surplus:
            trash(surplus)
        if stale:
            deleted = _delete_unchanged(session, stale)
        _note_clock(session, now, unless_within=HOUR)
    ids = (stale[position].slot.record_id.hex() for position in deleted)
    return Expiry(trashed=tuple(surplus), deleted=tuple(ids))


def trash_time(session: Session) -> str:
    """Return the moment that a record which goes into the trash now is to carry.

    Never before the time that the vault noted last: from a clock that is behind, a record would
    be over its days as soon as the clock is right.
    """
    with session.shared(), session.ledger.reading():
        noted = session.ledger.notes.get("clock")
    now = session.clock()
    return timestamp(max(now, noted) if isinstance(noted, (int, float)) else now)


def _suspicion(session: Session, now: float) -> str:
    with session.shared(), session.ledger.reading():
        known = session.ledger.notes.get("clock")
    if not isinstance(known, (int, float)):  # nothing to compare this machine's clock with
        return "this vault has not noted the time yet"
    if now - known > LEAP:
        days = (now - known) / DAY
        return f"this machine's clock is {days:.0f} days later than at the last time"
    if known - now > SETBACK:
        return "this machine's clock is earlier than at the last time"
    return ""


def _note_clock(session: Session, now: float, *, unless_within: float = 0.0) -> None:
    """Note the time, unless one was noted within so many seconds: each note is a transaction."""
    with session.shared():
        with session.ledger.reading():
            known = session.ledger.notes.get("clock")
        if isinstance(known, (int, float)) and abs(now - known) < unless_within:
            return
        with session.ledger.writing() as change:
            change.note("clock", int(now))


def _delete_unchanged(session: Session, seen: Mapping[int, Opened]) -> list[int]:
    """Delete records that are as they were seen; return their positions."""

    def unchanged(position: int) -> bool:  # its word counts the revisions
        return session.ledger.at_position(position).slot.word == seen[position].slot.word

    ids = [opened.slot.record_id.hex() for opened in seen.values()]
    return delete(session, ids, lambda _done, _total: None, unchanged)


def _stale(session: Session, days: float, now: float) -> Iterator[Opened]:
    """Yield what is in the trash for longer than so many days."""
    with session.shared(), session.ledger.reading():
        for position, slot in session.ledger.placed_slots():
            if slot.flags & TRASHED:
                opened = session.ledger.at_position(position)
                trashed = record_of(opened).trashed
                if trashed is not None and now - _seconds(trashed) > days * DAY:
                    yield opened


def _surplus(
    session: Session, retention: Retention, keep: Callable[[Record], bool], now: float
) -> Iterator[str]:
    """Yield the ids of pictures beyond the limits; the newest stay."""
    count = size = 0
    with session.shared(), session.ledger.reading():
        placed = [
            position
            for position, slot in session.ledger.placed_slots()
            if slot.kind == Kind.PICTURE and not slot.flags & TRASHED
        ]
        for position in reversed(placed):
            record = record_of(session.ledger.at_position(position))
            if keep(record):
                continue
            count += 1
            size += sum(blob.length for blob in record.blobs.values())
            age = (now - _seconds(record.created)) / DAY
            beyond = (
                (retention.max_count is not None and count > retention.max_count)
                or (retention.max_bytes is not None and size > retention.max_bytes)
                or (retention.max_age_days is not None and age > retention.max_age_days)
            )
            if beyond:
                yield record.id


def _seconds(timestamp: str) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        raise DamagedError("a record's time is not one that this program writes") from None
