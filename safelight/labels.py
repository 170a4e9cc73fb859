"""What people say about pictures: tags, albums, a rating, favourites, a note; all of it sealed.

A change is a function from metadata to metadata, as `Vault.edit` takes it. It is checked when it is
made, so that a bad tag is refused before the first of many records is touched.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = [
    "Change",
    "Labels",
    "favoured",
    "in_albums",
    "label",
    "labelled_line",
    "noted",
    "rated",
    "tagged",
]

Change = Callable[[dict[str, Any]], Mapping[str, Any]]
MAX_NAME = 64  # characters of a tag or an album's name
MAX_NAMES = 64  # tags or albums of one picture
MAX_NOTE = 16_384  # characters
BEST = 5  # stars


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """All labels of one record as they are now; `restoring` puts them back, for an undo."""

    tags: tuple[str, ...] = ()
    albums: tuple[str, ...] = ()
    rating: int = 0
    favourite: bool = False
    note: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Labels":
        """Read the labels out of a record's metadata; what is missing is unlabelled."""
        return cls(
            tags=tuple(metadata.get("tags", ())),
            albums=tuple(metadata.get("albums", ())),
            rating=metadata.get("rating", 0),
            favourite=metadata.get("favourite", False),
            note=metadata.get("note", ""),
        )

    def restoring(self) -> Change:
        """Give the change that makes a record's labels these."""
        return lambda metadata: metadata | labelled_line(self)


def tagged(add: Iterable[str] = (), remove: Iterable[str] = ()) -> Change:
    """Give the change that adds and removes tags; case does not tell them apart.

    Raises UsageError for a tag that is empty, too long or not printable.
    """
    return _listed("tags", "tag", add, remove)


def in_albums(add: Iterable[str] = (), remove: Iterable[str] = ()) -> Change:
    """Give the change that puts pictures into albums and takes them out, as `tagged` does tags."""
    return _listed("albums", "album", add, remove)


def rated(stars: int) -> Change:
    """Give the change that sets the rating, 1 to 5, or takes it away with 0. Raises UsageError."""
    if not 0 <= stars <= BEST:
        raise UsageError(f"a rating is {stars}; 0 (none) to {BEST} stars are allowed")
    return lambda metadata: metadata | {"rating": stars}


def favoured(favourite: bool) -> Change:
    """Give the change that makes pictures favourites, which no retention limit touches."""
    return lambda metadata: metadata | {"favourite": favourite}


def noted(text: str) -> Change:
    """Give the change that sets the note; an empty one takes it away. Raises UsageError."""
    text = text.strip()
    if len(text) > MAX_NOTE:
        raise UsageError(f"the note has {len(text)} characters; at most {MAX_NOTE} are kept")
    return lambda metadata: metadata | {"note": text}


def label(vault: "Vault", ids: Iterable[str], change: Change) -> Iterator["Record"]:
    """Change record after record and yield each as it is then; each is durable by itself.

    Raises what the vault raises; what was yielded before stays changed.
    """
    for record_id in ids:
        yield vault.edit(record_id, change)


def labelled_line(labels: Labels) -> dict[str, Any]:
    """Give labels as metadata and JSON lines have them."""
    return {
        "tags": list(labels.tags),
        "albums": list(labels.albums),
        "rating": labels.rating,
        "favourite": labels.favourite,
        "note": labels.note,
    }


def _listed(field: str, what: str, add: Iterable[str], remove: Iterable[str]) -> Change:
    added = {_fold(name): name for name in (_name(each, what) for each in add)}
    removed = {_fold(name) for name in (_name(each, what) for each in remove)}

    def change(metadata: dict[str, Any]) -> Mapping[str, Any]:
        kept = [name for name in metadata.get(field, ()) if _fold(name) not in removed]
        known = {_fold(name) for name in kept}
        names = kept + [name for key, name in added.items() if key not in known | removed]
        if len(names) > MAX_NAMES:
            raise UsageError(f"a picture would have {len(names)} {field}; at most {MAX_NAMES}")
        return metadata | {field: names}

    return change


def _name(text: str, what: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise UsageError(f"{what} names have 1 to {MAX_NAME} printable characters")
    return name


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
