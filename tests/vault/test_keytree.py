"""Root and pages: their bytes, what they refuse, and every bit of them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import DamagedError, StorageError, UnsupportedFormatError
from vault.keytree import (
    SLOT_BYTES,
    TRASHED,
    PageEntry,
    RecordSlot,
    Root,
    SlotKey,
    open_page,
    open_root,
    read_slot,
    read_slots,
    seal_page,
    seal_root,
    select_slots,
    slot_word,
    slots_in,
    with_slots,
)
from vault.sealed_record import Opened
from vault.sealing import SEAL_LIMIT

VAULT, KEY = bytes(range(16)), bytes(range(32))
ENTRY = PageEntry(KEY, bytes(16), 0, 0)


def slot(number: int, kind: int = 1, flags: int = 0) -> RecordSlot:
    tag = number.to_bytes(4, "big")
    return RecordSlot(tag * 4, tag * 8, tag[::-1] * 8, slot_word(kind, flags, 1))


def test_reprs_show_no_key():
    root = Root(next_position=1, pages=(ENTRY,), slot_keys=(SlotKey(1, 2, KEY),))
    record = RecordSlot(bytes(16), KEY, KEY, 1)
    shown = repr((ENTRY, SlotKey(1, 2, KEY), record, root, Opened(1, record, b"secret prompt")))
    assert repr(KEY)[2:-1] not in shown
    assert "secret" not in shown


@pytest.mark.parametrize(("version", "last"), [(1, 1024), (2, 256)])
def test_a_root_comes_back_with_all_it_holds(version, last):
    root = Root(
        version=version,
        next_position=last + 1,
        pending_seals=7,
        slots_digest=bytes(range(32)),
        slot_keys=(SlotKey(1, 2, KEY), SlotKey(2, 3, KEY[::-1])),
        pages=(ENTRY._replace(revision=9, flags=1), PageEntry(KEY[::-1], b"t" * 16, 2, 0)),
        settings=b'{"kept": "by every release"}',
    )
    again = Root.decode(root.encode())
    assert again.encode() == root.encode()
    assert again == root
    assert again.page_slots == last


@given(st.binary(max_size=200))
def test_any_bytes_are_a_root_or_damage(payload):
    try:
        root = Root.decode(payload)
    except DamagedError:
        return
    assert root.encode() == payload


def test_a_root_that_does_not_add_up_is_damage():
    good = Root(next_position=1, pages=(ENTRY,)).encode()
    for size in range(len(good)):
        with pytest.raises(DamagedError):
            Root.decode(good[:size])
    with pytest.raises(DamagedError):
        Root.decode(good + b"\0")
    with pytest.raises(DamagedError):
        Root.decode(Root(next_position=257, pages=(ENTRY,)).encode())  # two pages, one named


def test_a_root_of_a_later_version_says_so():
    later = b"\0\3" + Root().encode()[2:]
    with pytest.raises(UnsupportedFormatError):
        Root.decode(later)


def test_a_root_belongs_to_its_vault_epoch_and_generation():
    sealed = seal_root(KEY, VAULT, (3, 8), Root())
    assert open_root(KEY, VAULT, (3, 8), sealed) == Root()
    for key, vault_id, at in [
        (KEY[::-1], VAULT, (3, 8)),
        (KEY, VAULT[::-1], (3, 8)),
        (KEY, VAULT, (3, 7)),
        (KEY, VAULT, (4, 8)),
        (KEY, VAULT, (8, 3)),
    ]:
        with pytest.raises(DamagedError):
            open_root(key, vault_id, at, sealed)


def test_every_bit_of_a_sealed_root_counts():
    sealed = seal_root(KEY, VAULT, (1, 1), Root(next_position=1, pages=(ENTRY,)))
    for bit in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_root(KEY, VAULT, (1, 1), bytes(bent))


def test_every_bit_of_a_sealed_page_counts():
    page = with_slots(b"", {0: slot(5)}, 64)
    sealed, entry = seal_page(ENTRY, VAULT, 0, page)
    assert open_page(entry, VAULT, 0, sealed) == page
    for bit in range(8 * len(sealed)):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_page(entry, VAULT, 0, bytes(bent))


def test_pages_are_not_swapped_or_replayed():
    page = with_slots(b"", {0: slot(5)}, 64)
    old, first = seal_page(ENTRY, VAULT, 0, page)
    new, second = seal_page(first, VAULT, 0, page)
    other, _ = seal_page(first, VAULT, 1, page)
    assert second.revision == 2
    for sealed in (old, other):
        with pytest.raises(DamagedError):
            open_page(second, VAULT, 0, sealed)
    with pytest.raises(DamagedError):  # the tag agrees, the number does not
        open_page(second, VAULT, 1, new)


def test_a_key_stops_at_the_limit_of_its_seals():
    with pytest.raises(StorageError, match="2\\^28"):
        seal_page(ENTRY._replace(revision=SEAL_LIMIT), VAULT, 0, b"")
    with pytest.raises(StorageError):
        seal_root(KEY, VAULT, (1, SEAL_LIMIT + 1), Root())
    with pytest.raises(StorageError):
        slot(1)._replace(word=slot_word(1, 0, SEAL_LIMIT)).revised(trashed=False)


@pytest.mark.parametrize(
    ("position", "number", "count"),
    [(1, 0, 64), (64, 0, 64), (65, 0, 128), (256, 0, 256), (257, 0, 256), (257, 1, 64)],
)
def test_pages_grow_by_64_slots(position, number, count):
    assert slots_in(number, 256, position) == count


def test_slots_are_read_where_they_were_put():
    page = with_slots(b"", {0: slot(1), 63: slot(2, kind=5)}, 64)
    page = with_slots(page, {64: slot(3, flags=TRASHED)}, 128)
    assert len(page) == 128 * SLOT_BYTES
    assert read_slot(page, 0) == slot(1)
    assert read_slot(page, 1) is None
    assert read_slot(page, 5000) is None
    assert (read_slot(page, 63).kind, read_slot(page, 64).flags) == (5, TRASHED)
    assert [s for s in read_slots(page) if s.word] == [slot(1), slot(2, kind=5), slot(3, flags=1)]
    assert read_slot(with_slots(page, {0: None}, 128), 0) is None


def test_select_takes_kind_and_trash_newest_first():
    slots = {0: slot(1), 1: slot(2, kind=2), 2: slot(3), 3: slot(4, flags=TRASHED)}
    slots[5] = slot(6)
    slots[6] = slot(7, flags=2)  # a flag of a later release does not hide a record
    page = with_slots(b"", slots, 64)

    def select(before, kinds, trashed, **more):
        return [index for index, _ in select_slots(page, before, kinds, trashed=trashed, **more)]

    assert select(1024, {1}, False) == [6, 5, 2, 0]
    assert select(5, {1, 2}, False) == [2, 1, 0]
    assert select(1024, {1}, True) == [3]
    assert select(0, {1}, False) == []
    assert select(1024, {1}, False, most=3) == [6, 5, 2]
    assert select(1024, {1}, False, most=9, among=[6, 3, 2, 0]) == [6, 2, 0]
    assert select(1024, {1}, False, most=2, among=[6, 3, 2, 0]) == [6, 2]


def test_a_revision_moves_on_and_keeps_the_rest():
    made = slot(1, kind=5)
    made = made._replace(word=slot_word(5, 0b10, 41))
    after = made.revised(trashed=True)
    assert (after.kind, after.flags, after.revision) == (5, 0b11, 42)
    assert after.revised(trashed=False).flags == 0b10
    assert after[:3] == made[:3]


def test_a_full_page_keeps_its_size():
    size = Root().page_slots
    page = with_slots(b"", {i: slot(i + 1) for i in range(size)}, size)
    sealed, entry = seal_page(PageEntry(os.urandom(32), bytes(16), 0, 0), VAULT, 0, page)
    assert open_page(entry, VAULT, 0, sealed) == page
