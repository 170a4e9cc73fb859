"""Encode the key tree: one root of page keys, pages of 256 record slots (FORMAT.md, 6 and 7).

Every key in it is random. A record key that could be derived could not be shredded.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from vault.context import Kind, context, number_id
from vault.errors import DamagedError, StorageError, UnsupportedFormatError
from vault.frame import frame, unframe
from vault.sealing import SEAL_LIMIT, TAG_BYTES, expand, open_small, seal_small

__all__ = [
    "EMPTY_SLOT",
    "REVISION_MASK",
    "SLOT_BYTES",
    "TRASHED",
    "PageEntry",
    "RecordSlot",
    "Root",
    "SlotKey",
    "open_page",
    "open_root",
    "read_slot",
    "read_slots",
    "root_tag",
    "seal_page",
    "seal_root",
    "select_slots",
    "slot_word",
    "slots_in",
    "with_slots",
]

# Root version: slots a page, which every save writes whole, and the root's entries of all pages
# with it. 256 are best for thousands of records, and no worse than 1024 for a hundred thousand.
_PAGE_SLOTS = {1: 1024, 2: 256}
ROOT_VERSION = 2  # of new vaults; a vault keeps the one that it was made with
_PAGE_STEP = 64  # slots that a page grows by
ROOT_LABEL = b"safelight/vault/1 root"  # HKDF label: root key -> key of the root row
DIRTY = 1  # page flag: lost a slot since the last epoch
TRASHED = 1  # slot flag: hidden, and restorable

_HEAD = struct.Struct(">HQQ32sB")  # version, next position, pending seals, slots digest, slot keys
_SLOT_KEY = struct.Struct(">BB32s")  # keyslot number, type, X25519 public key
_COUNT = struct.Struct(">I")
_PAGE = struct.Struct(">32s16sQB")  # key, tag, revision, flags
_SLOT = struct.Struct(">16s32s32sQ")  # id, blob key, metadata key, kind(8) flags(8) revision(48)
SLOT_BYTES = _SLOT.size  # 88
EMPTY_SLOT = bytes(SLOT_BYTES)
_REVISION_BITS = 48
REVISION_MASK = (1 << _REVISION_BITS) - 1
_KIND_AND_TRASHED = 0xFF00 | TRASHED  # of a word shifted by the revision; other flags may come


class PageEntry(NamedTuple):
    """What the root holds of one page; `revision` counts the seals under `key`."""

    key: bytes
    tag: bytes
    revision: int
    flags: int

    def __repr__(self) -> str:
        return f"PageEntry(***, revision={self.revision})"


class SlotKey(NamedTuple):
    """The HPKE public key of a phrase or passphrase slot. It lies nowhere outside the root."""

    no: int
    type: int
    public: bytes  # not for printing either: whoever knows it can forge a slot

    def __repr__(self) -> str:
        return f"SlotKey({self.no}, ***)"


@dataclass(frozen=True, kw_only=True, repr=False)
class Root:
    """The opened root: everything that hangs on the root key of one epoch."""

    version: int = ROOT_VERSION
    next_position: int = 0
    pending_seals: int = 0
    slots_digest: bytes = bytes(32)
    slot_keys: tuple[SlotKey, ...] = ()
    pages: tuple[PageEntry, ...] = ()
    settings: bytes = b"{}"  # a JSON object; kept whole on every rewrite

    @property
    def page_slots(self) -> int:
        """Return how many positions a page stands for: the page of one is position // this."""
        return _PAGE_SLOTS[self.version]

    def encode(self) -> bytes:
        """Return the root's payload."""
        parts = [
            _HEAD.pack(
                self.version,
                self.next_position,
                self.pending_seals,
                self.slots_digest,
                len(self.slot_keys),
            ),
            *(_SLOT_KEY.pack(*key) for key in self.slot_keys),
            _COUNT.pack(len(self.pages)),
            *(_PAGE.pack(*page) for page in self.pages),
            _COUNT.pack(len(self.settings)),
            self.settings,
        ]
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes) -> "Root":
        """Return the root of a payload; raises DamagedError when a field is missing or too much."""
        try:
            version, position, seals, digest, keys = _HEAD.unpack_from(payload)
            if version not in _PAGE_SLOTS:
                raise UnsupportedFormatError(
                    f"root version {version}; this program knows up to {ROOT_VERSION}",
                    hint="Use a newer release.",
                )
            at = _HEAD.size
            slot_keys = tuple(
                SlotKey(*_SLOT_KEY.unpack_from(payload, at + i * _SLOT_KEY.size))
                for i in range(keys)
            )
            at += keys * _SLOT_KEY.size
            (count,) = _COUNT.unpack_from(payload, at)
            at += _COUNT.size
            end = at + count * _PAGE.size
            pages = tuple(map(PageEntry._make, _PAGE.iter_unpack(payload[at:end])))
            (length,) = _COUNT.unpack_from(payload, end)
        except struct.error:
            raise DamagedError("the root is cut short") from None
        settings = payload[end + _COUNT.size :]
        if len(settings) != length or count != -(-position // _PAGE_SLOTS[version]):
            raise DamagedError("the root's counts do not agree with what it holds")
        return cls(
            version=version,
            next_position=position,
            pending_seals=seals,
            slots_digest=digest,
            slot_keys=slot_keys,
            pages=pages,
            settings=settings,
        )

    def with_pages(self, pages: Mapping[int, PageEntry], next_position: int) -> "Root":
        """Return the root with some pages replaced or appended."""
        entries = list(self.pages)
        for number in sorted(pages):
            entries[number : number + 1] = [pages[number]]
        return replace(self, pages=tuple(entries), next_position=next_position)


class RecordSlot(NamedTuple):
    """One record's keys, and what a list needs to know before it opens any metadata."""

    record_id: bytes
    blob_key: bytes
    metadata_key: bytes
    word: int

    def __repr__(self) -> str:
        return f"RecordSlot({self.record_id.hex()}, ***)"

    @property
    def kind(self) -> int:
        """Return the record's kind as a number."""
        return self.word >> 56

    @property
    def flags(self) -> int:
        """Return the flag bits (TRASHED)."""
        return self.word >> _REVISION_BITS & 0xFF

    @property
    def revision(self) -> int:
        """Return the metadata's revision, which counts its seals."""
        return self.word & REVISION_MASK

    def revised(self, *, trashed: bool) -> "RecordSlot":
        """Return the slot at its next revision; raises StorageError at the limit of seals."""
        flags = self.flags & ~TRASHED | (TRASHED if trashed else 0)
        return self._replace(word=slot_word(self.kind, flags, _next(self.revision)))


def slot_word(kind: int, flags: int, revision: int) -> int:
    """Return kind(8) || flags(8) || revision(48) as one number."""
    return kind << 56 | flags << _REVISION_BITS | revision


def slots_in(number: int, page_slots: int, next_position: int) -> int:
    """Return how many slots a page holds: all that are in use, rounded up to 64, at most all."""
    used = next_position - number * page_slots
    return min(page_slots, -(-used // _PAGE_STEP) * _PAGE_STEP)


def read_slot(page: bytes, index: int) -> RecordSlot | None:
    """Return a slot of a page, or None when no record has it."""
    start = index * SLOT_BYTES
    if start >= len(page):
        return None
    slot = RecordSlot._make(_SLOT.unpack_from(page, start))
    return slot if any(slot.record_id) else None


def read_slots(page: bytes) -> Iterator[RecordSlot]:
    """Yield every slot of a page in order, the empty ones too (their `word` is 0)."""
    return map(RecordSlot._make, _SLOT.iter_unpack(page))


def select_slots(
    page: bytes,
    before: int,
    kinds: Collection[int],
    *,
    trashed: bool | None,
    among: Sequence[int] | None = None,
    most: int | None = None,
) -> list[tuple[int, RecordSlot]]:
    """Return (index, slot) of the page's records of some kinds below index `before`, descending.

    trashed: those in the trash, or those that are not; None: both. among: only these indices,
    descending. most: how many at most; None: all. The hot loop of every list.
    """
    flags = (0, TRASHED) if trashed is None else (TRASHED if trashed else 0,)
    wanted = {kind << 8 | flag for kind in kinds for flag in flags}
    if among is not None:
        slots = [(index, read_slot(page, index)) for index in among if index < before]
        return [
            (index, slot)
            for index, slot in slots
            if slot and slot.word >> _REVISION_BITS & _KIND_AND_TRASHED in wanted
        ][:most]
    unpacked = list(_SLOT.iter_unpack(page[: max(0, before) * SLOT_BYTES]))
    found = (
        (index, RecordSlot._make(unpacked[index]))
        for index in range(len(unpacked) - 1, -1, -1)
        if unpacked[index][3] >> _REVISION_BITS & _KIND_AND_TRASHED in wanted
    )
    return list(islice(found, most))


def with_slots(page: bytes, slots: Mapping[int, RecordSlot | None], count: int) -> bytes:
    """Return the page at `count` slots with some of them replaced."""
    patched = bytearray(page.ljust(count * SLOT_BYTES, b"\0"))
    for index, slot in slots.items():
        start = index * SLOT_BYTES
        patched[start : start + SLOT_BYTES] = EMPTY_SLOT if slot is None else _SLOT.pack(*slot)
    return bytes(patched)


def seal_page(
    entry: PageEntry, vault_id: bytes, number: int, page: bytes
) -> tuple[bytes, PageEntry]:
    """Return the sealed page and its entry at the next revision, same key."""
    revision = _next(entry.revision)
    aad = context(Kind.PAGE, vault_id, number_id(number), revision)
    sealed = seal_small(entry.key, aad, frame(page, metadata=True))
    return sealed, entry._replace(revision=revision, tag=sealed[-TAG_BYTES:])


def open_page(entry: PageEntry, vault_id: bytes, number: int, sealed: bytes) -> bytes:
    """Return a page's slots; raises DamagedError unless it is the one that the root names."""
    if sealed[-TAG_BYTES:] != entry.tag:
        raise DamagedError(f"page {number} is not the one that the root names: swapped or replayed")
    aad = context(Kind.PAGE, vault_id, number_id(number), entry.revision)
    return unframe(open_small(entry.key, aad, sealed), metadata=True)


def seal_root(root_key: bytes, vault_id: bytes, at: tuple[int, int], root: Root) -> bytes:
    """Return the sealed root row of (epoch, generation)."""
    epoch, generation = at
    if generation > SEAL_LIMIT:
        raise StorageError("this vault's root was sealed 2^28 times", hint="Rotate its keys.")
    aad = context(Kind.ROOT, vault_id, number_id(epoch), generation)
    return seal_small(expand(root_key, ROOT_LABEL), aad, frame(root.encode(), metadata=True))


def open_root(root_key: bytes, vault_id: bytes, at: tuple[int, int], sealed: bytes) -> Root:
    """Return the root of (epoch, generation); raises DamagedError when the row is another one."""
    epoch, generation = at
    aad = context(Kind.ROOT, vault_id, number_id(epoch), generation)
    opened = open_small(expand(root_key, ROOT_LABEL), aad, sealed)
    return Root.decode(unframe(opened, metadata=True))


def root_tag(sealed: bytes) -> bytes:
    """Return the 16 bytes that the anchor keeps of a sealed root."""
    return sealed[-TAG_BYTES:]


def _next(revision: int) -> int:
    if revision >= SEAL_LIMIT:
        raise StorageError("a key of this vault sealed 2^28 times", hint="Rotate its keys.")
    return revision + 1
