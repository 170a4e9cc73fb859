"""Say what goes in and what comes out: drafts, records, and their sealed metadata.

Metadata is JSON with the vault's own keys outside and the application's object whole under
`data`, so the two never meet. Keys that this release does not know survive a rewrite.
"""

import base64
import json
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, cast

from vault.context import PUBLIC_KINDS, Kind
from vault.errors import BadValueError, DamagedError, UnsupportedFormatError
from vault.sealing import PREFIX_BYTES

__all__ = [
    "Blob",
    "BlobDraft",
    "BlobSeal",
    "Draft",
    "Metadata",
    "Record",
    "decode_record",
    "timestamp",
]

JSON = Any  # what `json` reads and writes
T = TypeVar("T")
SCHEMA_VERSION = 1
METADATA_BYTES = 1 << 20  # of JSON, UTF-8
_BLOB_VALUES, _BLOB_TYPES = itemgetter("name", "kind", "type", "length"), (str, int, str, int)
_SEAL_VALUES, _SEAL_TYPES = itemgetter("file", "prefix", "revision"), (str, str, int)
_KINDS = {int(kind): kind for kind in Kind}
_MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
_WRITTEN_HEAD = re.compile(
    rf'{{"schema":{SCHEMA_VERSION},"created":"([^"\\]*)","trashed":(?:null|"([^"\\]*)"),"blobs":\['
)
_WRITTEN_DATA = '],"data":{'
_read = json.JSONDecoder().raw_decode  # (text, where a value begins) -> the value, where it ends
NAME_LENGTH = 64  # characters of a blob's name or media type
BLOBS_A_RECORD = 64


@dataclass(frozen=True)
class BlobDraft:
    """Bytes to be sealed beside a record; `name` is their role in it, such as "picture"."""

    name: str
    kind: Kind
    media_type: str
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for text in (self.name, self.media_type):
            if not 0 < len(text) <= NAME_LENGTH or not text.isascii() or not text.isprintable():
                raise BadValueError(
                    f"a blob's name and media type are 1 to {NAME_LENGTH} printable ASCII letters"
                )
        _refuse_kind(self.kind)


@dataclass(frozen=True)
class Draft:
    """A record to be: its kind, the application's metadata (JSON) and its blobs."""

    kind: Kind
    metadata: Mapping[str, JSON] = field(repr=False)
    blobs: Sequence[BlobDraft] = ()

    def __post_init__(self) -> None:
        _refuse_kind(self.kind)
        names = [blob.name for blob in self.blobs]
        if len(set(names)) != len(names) or len(names) > BLOBS_A_RECORD:
            raise BadValueError(f"a record has up to {BLOBS_A_RECORD} blobs of different names")


class Blob(NamedTuple):
    """One sealed file of a record; `length` is the plaintext's, in bytes."""

    name: str
    kind: Kind
    media_type: str
    length: int


class Record(NamedTuple):
    """One record as the application sees it. Its repr shows no metadata.

    `created` and `trashed` are ISO 8601 UTC with milliseconds.
    """

    id: str
    position: int
    kind: Kind
    revision: int
    created: str
    trashed: str | None
    metadata: dict[str, JSON]
    blobs: Mapping[str, Blob]

    def __repr__(self) -> str:
        return f"Record({self.id}, position={self.position}, ***)"


class BlobSeal(NamedTuple):
    """What a record keeps of a blob, so that each vouches for the other.

    `file` is the 16-byte file name, `prefix` the first 56 sealed bytes, `revision` the record's
    when the blob was written.
    """

    blob: Blob
    file: bytes
    prefix: bytes
    revision: int


@dataclass(frozen=True, repr=False)
class Metadata:
    """A record's metadata, opened; `rest` holds the vault's keys that this release lacks."""

    created: str
    trashed: str | None
    blobs: tuple[BlobSeal, ...]
    data: dict[str, JSON]
    rest: Mapping[str, JSON] = field(default_factory=dict[str, JSON])

    def encode(self) -> bytes:
        """Return the JSON, UTF-8.

        Raises BadValueError when the application's part is no JSON object or is larger than
        1 MiB; the message holds nothing of it.
        """
        document = {
            **self.rest,
            "schema": SCHEMA_VERSION,
            "created": self.created,
            "trashed": self.trashed,
            "blobs": [_encode_blob(seal) for seal in self.blobs],
            "data": self.data,
        }
        try:
            text = json.dumps(
                document, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            ).encode()
        except (TypeError, ValueError, RecursionError):
            raise BadValueError("a record's metadata is not plain JSON") from None
        if len(text) > METADATA_BYTES:
            raise BadValueError(
                f"a record's metadata has {len(text)} bytes of JSON, more than {METADATA_BYTES}"
            )
        return text

    @classmethod
    def decode(cls, text: bytes) -> "Metadata":
        """Return the metadata of JSON; raises DamagedError for another shape."""
        created, trashed, data, blobs, rest = _parse(text, _decode_seal)
        return cls(created, trashed, tuple(blobs), data, rest)

    def blob(self, name: str) -> BlobSeal | None:
        """Return what is kept of the blob of that name."""
        return next((seal for seal in self.blobs if seal.blob.name == name), None)


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 UTC with milliseconds and a Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _encode_blob(seal: BlobSeal) -> dict[str, JSON]:
    return {
        "name": seal.blob.name,
        "kind": int(seal.blob.kind),
        "type": seal.blob.media_type,
        "length": seal.blob.length,
        "file": seal.file.hex(),
        "prefix": base64.b64encode(seal.prefix).decode(),
        "revision": seal.revision,
    }


class _WrittenBlobs(Mapping[str, Blob]):
    """The blobs of a record by name, parsed when they are first asked for: most lists never do."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _blobs(self) -> dict[str, Blob]:
        try:
            return {blob.name: blob for blob in map(_decode_blob, json.loads(self._text))}
        except _MISSHAPEN:
            raise _misshapen() from None

    def __getitem__(self, name: str) -> Blob:
        return self._blobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)

    def __repr__(self) -> str:
        return "Blobs(***)"


def decode_record(text: bytes) -> tuple[str, str | None, dict[str, JSON], Mapping[str, Blob]]:
    """Return created, trashed, the application's object and the blobs of a record's JSON.

    JSON as `Metadata.encode` writes it without foreign keys is cut where its parts meet, and the
    blobs are left unparsed: half the time of a list. Anything else is parsed whole. Raises
    DamagedError for another shape; of blobs left unparsed, when they are asked for.
    """
    try:
        written = text.decode()
        head = _WRITTEN_HEAD.match(written)
        # No string can hold this mark, since JSON escapes its quotes.
        end = written.find(_WRITTEN_DATA, head.end()) if head else -1
        if head and end >= 0:
            data, last = _read(written, end + len(_WRITTEN_DATA) - 1)
            if last == len(written) - 1 and written[last] == "}":
                return head[1], head[2], data, _WrittenBlobs(written[head.end() - 1 : end + 1])
    except (ValueError, RecursionError):
        pass  # `_parse` says what is wrong, if anything is
    created, trashed, data, blobs, _ = _parse(text, _decode_blob)
    return created, trashed, data, {blob.name: blob for blob in blobs}


def _parse(
    text: bytes, decode: Callable[[JSON], T]
) -> tuple[str, str | None, dict[str, JSON], list[T], dict[str, JSON]]:
    try:
        document = json.loads(text)
        schema = document.pop("schema")
        created, trashed, data = (
            document.pop("created"),
            document.pop("trashed"),
            document.pop("data"),
        )
        blobs = [decode(blob) for blob in document.pop("blobs")]
        times = type(created) is str and (trashed is None or type(trashed) is str)
        if not times or type(data) is not dict:
            raise ValueError
    except _MISSHAPEN:
        raise _misshapen() from None
    if schema != SCHEMA_VERSION:
        raise UnsupportedFormatError(
            f"a record has another metadata schema than {SCHEMA_VERSION}",
            hint="Use a newer release.",
        )
    return created, trashed, cast(dict[str, JSON], data), blobs, document


def _misshapen() -> DamagedError:
    return DamagedError("a record's metadata has a shape that nobody writes")


def _decode_blob(document: JSON) -> Blob:
    values = _BLOB_VALUES(document)
    if tuple(map(type, values)) != _BLOB_TYPES:
        raise ValueError
    name, kind, media_type, length = values
    if length < 0:
        raise ValueError
    return Blob(name, _KINDS[kind], media_type, length)


def _decode_seal(document: JSON) -> BlobSeal:
    values = _SEAL_VALUES(document)
    if tuple(map(type, values)) != _SEAL_TYPES:
        raise ValueError
    file_hex, prefix_text, revision = values
    file, prefix = bytes.fromhex(file_hex), a2b_base64(prefix_text, strict_mode=True)
    if revision < 1 or (len(file), len(prefix)) != (16, PREFIX_BYTES):
        raise ValueError
    return BlobSeal(_decode_blob(document), file, prefix, revision)


def _refuse_kind(kind: Kind) -> None:
    if kind not in PUBLIC_KINDS:
        raise BadValueError(f"kind {int(kind)} is the vault's own; choose one below 128")
