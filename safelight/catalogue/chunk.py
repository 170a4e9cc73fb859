"""What is kept of up to 1024 neighbouring records: columns of numbers, texts, and a row of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np

from safelight.catalogue.text import Texts, fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vault import Record

__all__ = ["BITS", "Chunk", "Row", "id_words"]

# Bits of the column `flags`.
BITS = {
    "favourite": 1,
    "flagged": 2,
    "imported": 4,
    "shared": 8,
    "noted": 16,
    "trashed": 32,
}
MISSING = -1  # of a whole number; NaN of others
MAX_TEXT = 8192  # characters of a prompt or note that are searched here; `safelight ls` finds all
MAX_TITLE = 160  # characters of a prompt that are shown beside a small picture
MAX_SEED = 2**63 - 1
_COLUMNS = np.dtype(
    [
        ("position", "<i8"),
        ("id", "<u8", (2,)),
        ("parent", "<u8", (2,)),  # zeros: none
        ("created", "<i8"),  # milliseconds since 1970, UTC
        ("trashed", "<i8"),  # likewise; 0: not in the trash
        ("day", "<i4"),  # ordinal of the local day
        ("width", "<i4"),
        ("height", "<i4"),
        ("seed", "<i8"),
        ("steps", "<i4"),
        ("guidance", "<f8"),
        ("score", "<f8"),
        ("rating", "u1"),
        ("flags", "u1"),
        ("model", "<u2"),  # places in the chunk's own tables
        ("sampler", "<u2"),
        ("tags", "<u2"),
        ("albums", "<u2"),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """One picture as a grid shows it. created, trashed: ISO 8601 UTC; title: the prompt's start."""

    id: str
    created: str
    day: date
    trashed: str | None
    width: int
    height: int
    seed: int | None
    rating: int
    favourite: bool
    flagged: bool
    model: str
    tags: tuple[str, ...]
    title: str


class Chunk:
    """Records of one stretch of positions, newest first; never changed once it is made."""

    __slots__ = ("columns", "negatives", "tables", "titles", "words")

    def __init__(self, records: Iterable["Record"], zone: tzinfo | None) -> None:
        """Take what is searched and shown of each record. zone: whose days count; None: local."""
        self.tables: dict[str, list[Any]] = {"model": [], "sampler": [], "tags": [], "albums": []}
        places: dict[str, dict[Any, int]] = {name: {} for name in self.tables}
        lines: list[tuple[Any, ...]] = []
        words: list[str] = []
        negatives: list[str] = []
        titles: list[str] = []
        for record in records:
            about = record.metadata
            prompt = _text(about.get("prompt"))
            tags, albums = _names(about.get("tags")), _names(about.get("albums"))
            note = _text(about.get("note"))
            lines.append(
                _line(record, zone, bool(note)) + self._placed(places, about, tags, albums)
            )
            words.append(fold("\n".join((prompt, note, *tags, *albums))))
            negatives.append(fold(_text(about.get("negative_prompt"))))
            titles.append(" ".join(prompt[: MAX_TITLE * 2].split())[:MAX_TITLE])
        self.columns = np.array(lines, _COLUMNS)
        self.words, self.negatives, self.titles = Texts(words), Texts(negatives), Texts(titles)

    def _placed(
        self,
        places: Mapping[str, dict[Any, int]],
        about: Mapping[str, Any],
        tags: tuple[str, ...],
        albums: tuple[str, ...],
    ) -> tuple[int, ...]:
        sampler = _settings(about).get("sampler")
        values = (_text(about.get("model")), _text(sampler), tags, albums)
        found: list[int] = []
        for (name, known), value in zip(places.items(), values, strict=True):
            place = known.get(value)
            if place is None:
                place = known[value] = len(known)
                self.tables[name].append(value)
            found.append(place)
        return tuple(found)

    def __len__(self) -> int:
        return len(self.columns)

    def row(self, index: int) -> Row:
        """Return a picture's row; index: its place in this chunk."""
        line = self.columns[index]
        flags, trashed, seed = int(line["flags"]), int(line["trashed"]), int(line["seed"])
        return Row(
            id=f"{int(line['id'][0]):016x}{int(line['id'][1]):016x}",
            created=_iso(int(line["created"])),
            day=date.fromordinal(int(line["day"])),
            trashed=_iso(trashed) if trashed else None,
            width=max(0, int(line["width"])),
            height=max(0, int(line["height"])),
            seed=None if seed == MISSING else seed,
            rating=int(line["rating"]),
            favourite=bool(flags & BITS["favourite"]),
            flagged=bool(flags & BITS["flagged"]),
            model=self.tables["model"][line["model"]],
            tags=self.tables["tags"][line["tags"]],
            title=self.titles[index],
        )

    def places_of(self, record_id: tuple[int, int], column: str = "id") -> "NDArray[np.intp]":
        """Return the places whose id, or parent, is this one."""
        ids = self.columns[column]
        return np.flatnonzero((ids[:, 0] == record_id[0]) & (ids[:, 1] == record_id[1]))


def id_words(record_id: str) -> tuple[int, int]:
    """Return a record id's 32 hex digits as two numbers; (0, 0) for another text."""
    if len(record_id) != 32:
        return 0, 0
    try:
        return int(record_id[:16], 16), int(record_id[16:], 16)
    except ValueError:
        return 0, 0


def _line(record: "Record", zone: tzinfo | None, noted: bool) -> tuple[Any, ...]:
    """Return the numbers of a record in the order of the columns, up to the tables' places."""
    about = record.metadata
    settings = _settings(about)
    created, day = _moment(record.created, zone)
    flags = (
        BITS["favourite"] * (about.get("favourite") is True)
        | BITS["flagged"] * (about.get("flagged") is True)
        | BITS["imported"] * bool(about.get("imported"))
        | BITS["shared"] * bool(about.get("disclosed"))
        | BITS["noted"] * noted
        | BITS["trashed"] * (record.trashed is not None)
    )
    return (
        record.position,
        id_words(record.id),
        id_words(_text(about.get("parent"))),
        created,
        0 if record.trashed is None else _moment(record.trashed, zone)[0],
        day,
        _whole(settings.get("width"), 1 << 24),
        _whole(settings.get("height"), 1 << 24),
        _whole(settings.get("seed"), MAX_SEED),
        _whole(settings.get("steps"), 1 << 24),
        _decimal(settings.get("guidance_scale")),
        _decimal(about.get("score")),
        max(0, _whole(about.get("rating"), 5)),
        flags,
    )


def _settings(about: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = about.get("settings")
    return settings if isinstance(settings, dict) else {}


def _moment(text: str, zone: tzinfo | None) -> tuple[int, int]:
    """Return milliseconds since 1970 and the ordinal of the local day; 1970 for no moment."""
    try:
        moment = datetime.fromisoformat(text)
        return round(moment.timestamp() * 1000), moment.astimezone(zone).toordinal()
    except (ValueError, OverflowError, OSError):
        return 0, date(1970, 1, 1).toordinal()


def _iso(milliseconds: int) -> str:
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _text(value: Any) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    names: Sequence[Any] = value
    return tuple(name for name in names if isinstance(name, str))


def _whole(value: Any, most: int) -> int:
    return value if type(value) is int and 0 <= value <= most else MISSING


def _decimal(value: Any) -> float:
    return float(value) if type(value) in (int, float) else float("nan")
