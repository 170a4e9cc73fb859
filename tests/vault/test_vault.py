"""The vault as its users meet it: what goes in comes out, and nothing else does."""

import os
import stat
import threading
from dataclasses import replace
from itertools import pairwise

import pytest

import vault
from tests.vault.conftest import CANARY, draft
from vault.anchor import Anchor
from vault.errors import (
    BadValueError,
    DamagedError,
    KeyStoreBrokenError,
    NotFoundError,
    VaultError,
)
from vault.index import SlotRow
from vault.keystore.entry import anchor_entry, kek_entry
from vault.keystore.memory import MemoryKeyStore
from vault.keytree import open_root, seal_root
from vault.passphrase import passphrase_secret
from vault.slots import SlotType, keyring_fields, seal_hpke_slot, seal_keyring_slot, slots_digest
from vault.unlock import opener_for

KINDS = tuple(kind for kind in vault.Kind if kind < 128)


def prompts(records):
    return [record.metadata["prompt"] for record in records]


@pytest.fixture
def opened(make):
    with make().open() as made:
        yield made


# What goes in comes out


def test_records_come_back_whole(make):
    place = make()
    metadata = {"prompt": 'Äpfel\n"rot"', "seed": 2**62, "nested": {"a": [1, None, True, 0.5]}}
    blobs = [
        vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", os.urandom(40_000)),
        vault.BlobDraft("thumbnail", vault.Kind.THUMBNAIL, "image/webp", b""),
    ]
    with place.open() as opened:
        (record,) = opened.add([vault.Draft(vault.Kind.ATTEMPT, metadata, blobs)])
    with place.open() as opened:
        assert opened.get(record.id) == record
        assert record.metadata == metadata
        assert [opened.read(record.id, blob.name) for blob in blobs] == [b.data for b in blobs]
        assert record.blobs["picture"].length == 40_000
        assert (record.kind, record.revision, record.trashed) == (vault.Kind.ATTEMPT, 1, None)


def test_created_is_the_clock_in_utc_milliseconds(make):
    place = make()
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(place.path, unlock, clock=lambda: 1_700_000_000.25) as opened:
        assert opened.add([draft()])[0].created == "2023-11-14T22:13:20.250Z"


def test_sixteen_records_are_one_transaction(opened):
    before = opened.status().generation
    records = opened.add([draft(str(n)) for n in range(16)])
    assert opened.status().generation == before + 1
    assert [record.position for record in records] == list(range(16))
    for bad in ([], [draft()] * 17):
        with pytest.raises(BadValueError):
            opened.add(bad)


@pytest.mark.parametrize(
    "metadata",
    [{"prompt": {1, 2}}, {"x": float("nan")}, {"x": "\ud800"}, {"x": "y" * (1 << 20)}, [1]],
)
def test_metadata_that_is_no_json_writes_nothing(opened, metadata):
    blob = vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", b"x")
    with pytest.raises(BadValueError):
        opened.add([draft(), vault.Draft(vault.Kind.PICTURE, metadata, [blob])])
    status = opened.status()
    assert (status.records, status.files, status.generation) == ({}, 0, 1)


def test_the_largest_metadata_fits(opened):
    record = opened.add([draft("y" * (1_048_576 - 600))])[0]
    assert len(opened.get(record.id).metadata["prompt"]) == 1_048_576 - 600


@pytest.mark.parametrize(
    ("name", "media_type", "kind"),
    [
        ("", "a/b", 1),
        ("x" * 65, "a/b", 1),
        ("ä", "a/b", 1),
        ("a\n", "a/b", 1),
        ("a", "", 1),
        ("a", "b", 128),
    ],
)
def test_bad_blobs_are_refused(name, media_type, kind):
    with pytest.raises(BadValueError):
        vault.BlobDraft(name, vault.Kind(kind), media_type, b"")


def test_two_blobs_of_one_name_and_kinds_of_the_vault_are_refused():
    blob = vault.BlobDraft("a", vault.Kind.INPUT, "b/c", b"")
    with pytest.raises(BadValueError):
        vault.Draft(vault.Kind.INPUT, {}, [blob, blob])
    with pytest.raises(BadValueError):
        vault.Draft(vault.Kind.ROOT, {})


# Listing, searching, naming


def test_lists_are_newest_first_and_page_by_position(opened):
    opened.add([draft(str(n), kind=KINDS[n % 2]) for n in range(10)])
    assert prompts(opened.list()) == ["8", "6", "4", "2", "0"]
    assert prompts(opened.list(kinds=KINDS)) == [str(n) for n in range(9, -1, -1)]
    first = list(opened.list(kinds=KINDS, limit=4))
    assert prompts(opened.list(kinds=KINDS, before=first[-1].position, limit=3)) == ["5", "4", "3"]
    assert prompts(opened.list(limit=0)) == prompts(opened.list(before=0)) == []
    assert prompts(opened.list(kinds=())) == []
    assert prompts(opened.list(before=1 << 80, limit=1)) == ["8"]


def test_lists_cross_pages(make):
    place = make()
    with place.open() as opened:
        for start in range(0, 2080, 16):
            opened.add(
                [
                    vault.Draft(KINDS[start // 16 % 2], {"prompt": str(n)})
                    for n in range(start, start + 16)
                ]
            )
        everything = list(opened.list(kinds=KINDS))
        assert prompts(everything) == [str(n) for n in range(2079, -1, -1)]
        assert all(a.position == b.position + 1 for a, b in pairwise(everything))
        assert prompts(opened.list(before=1025, limit=2, kinds=KINDS)) == ["1024", "1023"]
        assert prompts(opened.search("1024", kinds=KINDS)) == ["1024"]
        assert opened.get(everything[-1].id).metadata == {"prompt": "0"}
    with place.open() as opened:
        assert len(list(opened.list(kinds=KINDS))) == 2080
        assert opened.status().records == {KINDS[0]: 1040, KINDS[1]: 1040}


def test_search_wants_all_words_in_text_values(opened):
    opened.add(
        [
            draft("Red APPLE", tags=["Studio", {"deep": "Straße"}]),
            draft("red pear", note='say "cheese"\n'),
            draft("caf\u0065\u0301", seed=1234),
        ]
    )

    def found(text):
        return sorted(prompts(opened.search(text)))

    assert found("red") == ["Red APPLE", "red pear"]
    assert found("studio apple RED") == ["Red APPLE"]
    assert found("STRASSE") == ["Red APPLE"]
    assert found('"cheese"') == ["red pear"]
    assert found("CAF\u00c9") == ["cafe\u0301"]
    assert len(found("")) == len(found("  ")) == 3
    # Keys, numbers and what the vault itself keeps are no text of the user's.
    assert found("prompt") == found("1234") == found("image/png") == found("deep") == []
    assert prompts(opened.search("red", limit=1)) == ["red pear"]


def test_prefixes_of_ids(opened):
    record = opened.add([draft()])[0]
    for digits in (4, 5, 31, 32):
        assert opened.resolve(record.id[:digits].upper()) == record.id
    wrong = f"{(int(record.id[:4], 16) + 1) % 65536:04x}"
    with pytest.raises(NotFoundError):
        opened.resolve(wrong)
    with pytest.raises(NotFoundError):
        opened.resolve("0000" + "0" * 28)  # an empty slot is no record
    for bad in (record.id[:3], record.id + "0", "xyzw", ""):
        with pytest.raises(BadValueError):
            opened.resolve(bad)


def test_ambiguous_prefixes_ask_for_more(opened):
    ids: dict[str, str] = {}
    while True:  # some pair among 300 or so shares 4 digits (birthday)
        for record in opened.add([vault.Draft(vault.Kind.JOB, {})] * 16):
            twin = ids.setdefault(record.id[:4], record.id)
            if twin != record.id:
                with pytest.raises(BadValueError, match="more than one"):
                    opened.resolve(record.id[:4])
                assert opened.resolve(record.id[:20]) == record.id
                return


def test_unknown_ids_and_blobs(opened):
    record = opened.add([draft()])[0]
    with pytest.raises(NotFoundError):
        opened.get("0" * 32)
    with pytest.raises(NotFoundError):
        opened.read(record.id, "mask")
    for bad in ("", "12", "z" * 32, record.id + "00"):
        with pytest.raises(BadValueError):
            opened.get(bad)


# Changing


def test_edit_replaces_data_and_counts_revisions(opened):
    record = opened.add([draft(rating=None)])[0]
    edited = opened.edit(record.id, lambda data: {**data, "rating": 5})
    assert edited == opened.get(record.id)
    assert (edited.revision, edited.metadata["rating"], edited.created) == (2, 5, record.created)
    assert opened.read(record.id, "picture") == b"pixels"
    with pytest.raises(BadValueError):
        opened.edit(record.id, lambda data: {"x": object()})
    assert opened.get(record.id) == edited


def test_several_records_are_edited_in_one_transaction_or_none(opened):
    first, second, third = (opened.add([draft(str(n))])[0] for n in range(3))
    before = opened.status().generation

    def rated(stars):
        return lambda data: {**data, "rating": stars}

    edited = opened.edit_all(
        {first.id.upper(): rated(1), second.id: rated(2), third.id: lambda data: data}
    )
    assert [(r.metadata.get("rating"), r.revision) for r in edited] == [(1, 2), (2, 2), (None, 1)]
    assert edited == [opened.get(r.id) for r in (first, second, third)]
    assert opened.status().generation == before + 1

    def broken(data):
        data["rating"] = 9
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        opened.edit_all({first.id: rated(5), second.id: broken})
    with pytest.raises(NotFoundError):
        opened.edit_all({first.id: rated(5), "ab" * 16: rated(5)})
    assert [opened.get(r.id) for r in (first, second, third)] == edited
    assert opened.edit_all({}) == []


def test_keys_of_a_later_release_survive_an_edit(opened):
    from vault.records import Metadata
    from vault.sealed_record import seal_metadata

    record = opened.add([draft()])[0]
    with opened._s.ledger.writing() as writing:
        found = opened._s.find(record.id)
        metadata = Metadata.decode(found.text)
        later = Metadata(metadata.created, None, metadata.blobs, metadata.data, {"album": ["x"]})
        slot = found.slot.revised(trashed=False)
        writing.put(found.position, seal_metadata(opened._s.ledger.vault_id, slot, later.encode()))
    opened.edit(record.id, lambda data: {"prompt": "new"})
    opened.trash([record.id])
    with opened._s.ledger.reading():
        assert Metadata.decode(opened._s.find(record.id).text).rest == {"album": ["x"]}


def test_what_is_shown_is_what_is_stored(opened):
    (record,) = opened.add([vault.Draft(vault.Kind.JOB, {"t": (1, 2), "d": {1: "x"}})])
    assert record == opened.get(record.id)
    edited = opened.edit(record.id, lambda data: {"t": (3,)})
    assert edited == opened.get(record.id)
    assert edited.metadata == {"t": [3]}


def test_a_change_that_changes_nothing_is_not_sealed(opened):
    record = opened.add([draft()])[0]
    before = opened.status().generation
    assert opened.untrash([record.id]) == [record]
    assert opened.trash([]) == []
    assert opened.status().generation == before


def test_edits_of_two_programs_both_count(make):
    place = make()
    with place.open() as one, place.open() as two:
        record = one.add([draft(count=0)])[0]
        calls = 0

        def change(data):
            nonlocal calls
            calls += 1
            if calls == 1:
                two.edit(record.id, lambda data: {**data, "count": data["count"] + 10})
            return {**data, "count": data["count"] + 1}

        assert one.edit(record.id, change).metadata["count"] == 11
        assert calls == 2
        assert two.get(record.id).revision == 3


def test_trash_hides_and_untrash_brings_back(opened):
    records = opened.add([draft(str(n)) for n in range(3)])
    ids = [records[0].id, records[2].id.upper(), records[0].id]
    trashed = opened.trash(ids)
    assert [record.id for record in trashed] == [records[0].id, records[2].id]
    assert all(record.trashed for record in trashed)
    assert prompts(opened.list()) == ["1"]
    assert prompts(opened.list(trashed=True)) == ["2", "0"]
    assert prompts(opened.search("2")) == []
    assert prompts(opened.search("2", trashed=True)) == ["2"]
    assert (opened.status().records, opened.status().trashed) == ({vault.Kind.PICTURE: 1}, 2)
    again = opened.trash([records[0].id])
    assert again == trashed[:1]  # the time of the first trashing stays
    assert opened.untrash([record.id for record in records])[0].trashed is None
    assert prompts(opened.list()) == ["2", "1", "0"]
    with pytest.raises(NotFoundError):
        opened.trash([records[1].id, "0" * 32])
    assert opened.get(records[1].id).trashed is None  # all or none


# Several at once


def test_a_list_may_show_the_trash_beside_the_others(opened):
    records = [opened.add([draft(str(n))])[0] for n in range(3)]
    opened.trash([records[1].id])
    both = opened.list(trashed=None)
    assert [(r.id, bool(r.trashed)) for r in both] == [
        (records[2].id, False),
        (records[1].id, True),
        (records[0].id, False),
    ]


def test_marks_say_which_stretch_of_positions_changed(make):
    place = make()
    with place.open() as opened, place.open() as other:
        assert opened.marks() == ()
        jobs = [opened.add([vault.Draft(vault.Kind.JOB, {})] * 16)[0] for _ in range(65)]
        before = opened.marks()
        assert len(before) == 2
        assert opened.marks() == before
        changes = (
            lambda: other.edit(jobs[0].id, lambda metadata: metadata | {"n": 1}),
            lambda: other.trash([jobs[0].id]),
            lambda: other.delete([jobs[0].id]),
        )
        for change in changes:
            change()
            after = opened.marks()
            assert (after[0] != before[0], after[1] == before[1]) == (True, True)
            before = after


def test_a_list_that_runs_while_others_write(make):
    place = make()
    with place.open() as reader, place.open() as writer:
        first = writer.add([draft(str(n)) for n in range(4)])
        running = reader.list(limit=3)
        assert next(running).metadata["prompt"] == "3"
        writer.add([draft("late")])
        writer.edit(first[1].id, lambda data: {"prompt": "changed"})
        assert prompts(running) == ["2", "1"]  # from the batch that was read
        assert prompts(reader.list()) == ["late", "3", "2", "changed", "0"]


def test_threads_share_one_vault(opened):
    errors: list[BaseException] = []

    def work(name):
        try:
            for n in range(6):
                record = opened.add([draft(f"{name}-{n}", name.encode())])[0]
                assert opened.read(record.id, "picture") == name.encode()
                assert len(list(opened.list(limit=3))) >= 1
        except BaseException as error:  # noqa: BLE001 - shown in the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(prompts(opened.list()))) == 24


def test_after_close_and_after_fork_nothing_works(make):
    place = make()
    opened = place.open()
    child = os.fork()
    if child == 0:
        try:
            opened.get("0" * 32)
        except BadValueError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    opened.close()
    opened.close()
    with pytest.raises(BadValueError, match="closed"):
        list(opened.list())
    assert repr(opened).endswith("closed)")


# Making one


def test_creation_shows_the_phrase_before_any_key_is_kept(folder):
    keystore = MemoryKeyStore()

    def refuse(phrase):
        assert keystore.entries == {}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vault.create(folder / "v", keystore=keystore, confirm=refuse)
    assert vault.inspect(folder / "v").state == "unfinished"
    with pytest.raises(NotFoundError, match="not finished"):
        vault.open_vault(folder / "v", vault.KeyStoreUnlock(keystore))
    vault_id = vault.inspect(folder / "v").vault_id
    with vault.create(folder / "v", keystore=keystore, confirm=lambda _: None) as made:
        assert made.vault_id == vault_id
    assert len(keystore.entries) == 2  # the KEK and the anchor


def test_an_entry_that_holds_something_else_is_not_taken_for_a_key(tmp_path):
    keystore = MemoryKeyStore(faults={"change_set"})
    with pytest.raises(KeyStoreBrokenError):
        vault.create(tmp_path / "v", keystore=keystore, confirm=lambda _: None)
    keystore.faults.clear()  # the store kept another value, of 33 bytes
    with pytest.raises(KeyStoreBrokenError, match="something else"):
        vault.create(tmp_path / "v", keystore=keystore, confirm=lambda _: None)


def test_an_unfinished_creation_with_another_header_is_damage(folder, make):
    def give_up(phrase):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vault.create(folder / "v", keystore=MemoryKeyStore(), confirm=give_up)
    (folder / "v" / "VAULT").write_bytes((make().path / "VAULT").read_bytes())
    with pytest.raises(DamagedError, match="do not belong together"):
        vault.create(folder / "v", keystore=MemoryKeyStore(), confirm=lambda _: None)


def test_an_empty_index_is_an_unfinished_creation(folder):
    from vault.layout import Layout

    layout = Layout(folder / "v")
    layout.claim()
    layout.prepare(bytes(16))
    keystore = MemoryKeyStore()
    assert vault.inspect(folder / "v").state == "unfinished"
    with pytest.raises(NotFoundError, match="not finished"):
        vault.open_vault(folder / "v", vault.KeyStoreUnlock(keystore))
    layout.index.unlink()
    assert vault.inspect(folder / "v").state == "unfinished"
    with pytest.raises(NotFoundError, match="not finished"):
        vault.open_vault(folder / "v", vault.KeyStoreUnlock(keystore))
    vault.create(folder / "v", keystore=keystore, confirm=lambda _: None).close()
    assert vault.inspect(folder / "v").state == "ready"


def test_an_unfinished_creation_keeps_its_entry_and_key(folder):
    keystore = MemoryKeyStore(faults={"change_set"})
    with pytest.raises(KeyStoreBrokenError):
        vault.create(folder / "v", keystore=keystore, confirm=lambda _: None)
    (entry,) = keystore.entries
    keystore.faults.clear()
    keystore.entries[entry] = bytes(range(32))  # as if it had died right after keeping the KEK
    vault.create(folder / "v", keystore=keystore, confirm=lambda _: None).close()
    assert keystore.entries[entry] == bytes(range(32))
    assert sum(".kek." in name for name in keystore.entries) == 1


@pytest.mark.parametrize("fault", ["fail_set", "forget_set", "change_set"])
def test_a_broken_key_store_makes_no_vault(folder, fault):
    keystore = MemoryKeyStore(faults={fault})
    with pytest.raises(KeyStoreBrokenError):
        vault.create(folder / "v", keystore=keystore, confirm=lambda _: None)
    assert vault.inspect(folder / "v").state == "unfinished"


def test_a_vault_is_not_made_twice_or_among_other_files(make, folder):
    place = make()
    before = place.sql("SELECT * FROM root")
    with pytest.raises(BadValueError, match="exists"):
        vault.create(place.path, keystore=MemoryKeyStore(), confirm=lambda _: None)
    assert place.sql("SELECT * FROM root") == before
    (folder / "mine").mkdir()
    (folder / "mine" / "letter").touch()
    with pytest.raises(BadValueError, match="other files"):
        vault.create(folder / "mine", keystore=MemoryKeyStore(), confirm=lambda _: None)
    with pytest.raises(BadValueError, match="not a folder"):
        vault.create(folder / "mine/letter", keystore=MemoryKeyStore(), confirm=lambda _: None)
    assert [path.name for path in (folder / "mine").iterdir()] == ["letter"]


def test_a_vault_needs_an_opener_and_a_phrase(folder):
    secret = passphrase_secret("correct horse")
    with pytest.raises(BadValueError):
        vault.create(folder / "v", keystore=None, confirm=lambda _: None)
    with pytest.raises(BadValueError, match="phrase"):
        vault.create(folder / "v", keystore=MemoryKeyStore())
    assert not (folder / "v").exists()
    with vault.create(folder / "v", keystore=None, passphrase=secret, confirm=lambda _: None) as v:
        record = v.add([draft()])[0]
        assert [slot.type for slot in v.status().slots] == ["phrase", "passphrase"]
    with vault.open_vault(folder / "v", vault.PassphraseUnlock(secret)) as opened:
        assert opened.read(record.id, "picture") == b"pixels"


def test_an_ephemeral_vault_has_no_phrase(folder):
    class Ephemeral(MemoryKeyStore):
        number = 6

    keystore = Ephemeral()
    with vault.create(folder / "v", keystore=keystore) as made:
        assert [slot.type for slot in made.status().slots] == ["keyring"]
        assert made.status().keystore == "Linux kernel keyring"


def test_a_lost_index_or_header_is_not_made_anew(place, folder):
    keystore = MemoryKeyStore()
    (place.path / "index.sqlite").rename(folder / "index")
    (place.path / "index.sqlite").touch()
    for act in (vault.inspect, lambda path: vault.create(path, keystore=keystore, confirm=print)):
        with pytest.raises(DamagedError, match="index is gone"):
            act(place.path)
    (place.path / "index.sqlite").unlink()
    with pytest.raises(DamagedError, match="index is gone"):
        vault.create(place.path, keystore=keystore, confirm=lambda _: None)
    with pytest.raises(DamagedError, match="index is gone"):
        vault.inspect(place.path)
    (folder / "index").rename(place.path / "index.sqlite")
    (place.path / "VAULT").unlink()
    with pytest.raises(DamagedError, match="VAULT is gone"):
        vault.create(place.path, keystore=keystore, confirm=lambda _: None)
    assert not (place.path / "VAULT").exists()


# What may be seen


def test_inspect_needs_no_key(make, folder):
    assert vault.inspect(folder / "nowhere").state == "absent"
    place = make(passphrase="correct horse")
    summary = vault.inspect(place.path)
    assert (summary.state, summary.format, summary.keystore) == ("ready", 1, 0)
    assert [slot.type for slot in summary.slots] == ["keyring", "phrase", "passphrase"]


def test_status_counts(place):
    with place.open() as opened:
        status = opened.status()
    assert status.records == {vault.Kind.PICTURE: 2}
    assert (status.epoch, status.generation, status.files, status.trashed) == (1, 2, 2, 0)
    assert status.bytes_on_disk > 10_000
    assert (status.opened_by, status.keystore) == ("keyring", "memory (for tests)")
    assert status.warnings == ()


def test_nothing_readable_lies_in_the_folder(make):
    place = make()
    with place.open() as opened:
        record = opened.add([draft(CANARY, CANARY.encode())])[0]
        opened.edit(record.id, lambda data: {**data, "note": CANARY})
        opened.trash([record.id])
    needles = [CANARY.encode(), CANARY.encode("utf-16-le"), b"image/png", b"2023-", b"prompt"]
    needles += list(place.keystore.entries.values())
    for path in place.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [needle for needle in needles if needle in content] == [], path.name


def test_files_are_private(place):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.path.rglob("*") if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in place.path.rglob("*") if path.is_dir()}
    assert (modes, folders) == ({0o600}, {0o700})
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700


def test_reprs_and_errors_hold_no_prompt(make):
    place = make(passphrase="correct horse")
    with place.open() as opened:
        record = opened.add([draft()])[0]
        shown = [repr(opened), repr(record), repr(draft()), repr(opened.status())]
        shown += [
            repr(vault.PhraseUnlock(place.phrase)),
            repr(vault.PassphraseUnlock(place.passphrase)),
        ]
        for act in (
            lambda: opened.add([draft({CANARY})]),
            lambda: opened.edit(record.id, lambda data: {CANARY: object()}),
            lambda: opened.resolve(CANARY),
            lambda: opened.get(CANARY),
        ):
            with pytest.raises(VaultError) as caught:
                act()
            shown.append(f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}")
    secrets = [CANARY, place.phrase, "correct horse", "canary", "pixels"]
    assert [secret for secret in secrets for text in shown if secret in text] == []


# The anchor


def copy_index(place, target):
    (target).write_bytes((place.path / "index.sqlite").read_bytes())


def test_an_old_copy_is_noticed_and_still_opens(place, folder):
    copy_index(place, folder / "old")
    with place.open() as opened:
        opened.add([draft("third")])
    (place.path / "index.sqlite").write_bytes((folder / "old").read_bytes())
    with place.open() as opened:
        assert ["older copy" in text for text in opened.status().warnings] == [True]
        assert len(list(opened.list())) == 2
    with place.open() as opened:
        assert opened.warnings  # nobody confirmed it
        opened.accept_copy()
        assert opened.warnings == ()
    with place.open() as opened:
        assert opened.warnings == ()


def test_two_copies_that_both_changed_are_noticed(place, folder):
    copy_index(place, folder / "old")
    with place.open() as opened:
        opened.add([draft("here")])
    (place.path / "index.sqlite").write_bytes((folder / "old").read_bytes())
    with vault.open_vault(place.path, vault.PhraseUnlock(place.phrase)) as opened:
        opened.add([draft("there")])
    with place.open() as opened:
        assert "parted" in opened.warnings[0]


def test_a_key_store_that_goes_silent_for_the_anchor_is_a_warning(place):
    class Moody(MemoryKeyStore):
        def get(self, entry):
            if entry.endswith("anchor"):
                raise KeyStoreBrokenError("no answer in time")
            return super().get(entry)

    unlock = vault.KeyStoreUnlock(Moody(place.keystore.entries))
    with vault.open_vault(place.path, unlock) as opened:
        assert "no answer in time" in opened.warnings[0]
    name = anchor_entry(bytes.fromhex(vault.inspect(place.path).vault_id))
    del place.keystore.entries[name]
    with place.open() as opened:
        assert opened.warnings == ()


def test_a_key_store_that_fails_for_the_anchor_does_not_lock_out(place):
    name = anchor_entry(bytes.fromhex(vault.inspect(place.path).vault_id))
    place.keystore.entries[name] = b"short"
    with place.open() as opened:
        assert "unreadable" in opened.warnings[0]
        opened.add([draft()])
        place.keystore.locked = True
    place.keystore.locked = False
    with place.open() as opened:
        assert len(list(opened.list())) == 3


def test_the_anchor_moves_every_quarter_of_an_hour_and_at_close(make):
    place = make()
    name = anchor_entry(bytes.fromhex(vault.inspect(place.path).vault_id))
    now = 0.0
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(place.path, unlock, clock=lambda: now) as opened:
        seen = [place.keystore.entries[name]]
        for now in (1.0, 899.0, 900.0, 901.0):  # noqa: B007 - the clock reads it
            opened.add([draft()])
            seen.append(place.keystore.entries[name])
    seen.append(place.keystore.entries[name])
    assert [a != b for a, b in pairwise(seen)] == [False, False, True, False, True]


def test_an_index_that_goes_back_while_open_is_damage(place, folder):
    copy_index(place, folder / "old")
    with place.open() as opened:
        opened.add([draft()])
        place.sql("UPDATE state SET generation = generation - 1")
        with pytest.raises(DamagedError, match="went back"):
            list(opened.list())


# An epoch change, as purge and rotation will make it


@pytest.mark.parametrize("kind", ["keyring", "phrase", "passphrase"])
def test_an_open_vault_follows_an_epoch_change(make, kind):
    place = make(passphrase="correct horse")
    unlocks = {
        "keyring": vault.KeyStoreUnlock(place.keystore),
        "phrase": vault.PhraseUnlock(place.phrase),
        "passphrase": vault.PassphraseUnlock(place.passphrase),
    }
    with vault.open_vault(place.path, unlocks[kind]) as opened:
        record = opened.add([draft()])[0]
        change_epoch(place)
        assert opened.get(record.id).metadata == {"prompt": CANARY}
        opened.add([draft("in the new epoch")])
        assert opened.status().epoch == 2
    for unlock in unlocks.values():
        with vault.open_vault(place.path, unlock) as again:
            assert prompts(again.list()) == ["in the new epoch", CANARY]


def change_epoch(place):
    """Give the vault a new root key, KEK and slots in one transaction."""
    vault_id = bytes.fromhex(vault.inspect(place.path).vault_id)
    rows = [SlotRow(*row) for row in place.sql("SELECT no, type, body FROM keyslot ORDER BY no")]
    ((epoch, generation),) = place.sql("SELECT epoch, generation FROM state")
    opener = opener_for(vault.KeyStoreUnlock(place.keystore), vault_id)
    root_key, _ = opener.root_key(rows, epoch)
    root = open_root(
        root_key, vault_id, (epoch, generation), place.sql("SELECT sealed FROM root")[0][0]
    )
    new_key, kek, at = os.urandom(32), os.urandom(32), (vault_id, epoch + 1)
    place.keystore.set(kek_entry(vault_id, b"new kek!"), kek)
    number, _ = keyring_fields(rows[0])
    fresh = [seal_keyring_slot(0, kek, (number, b"new kek!"), at, new_key)]
    for key in root.slot_keys:
        parameters = rows[key.no].body[:22] if key.type == SlotType.PASSPHRASE else b""
        row = (key.no, SlotType(key.type), parameters)
        fresh.append(seal_hpke_slot(row, key.public, at, new_key))
    changed = replace(root, slots_digest=slots_digest(fresh))
    for row in fresh:
        place.sql("UPDATE keyslot SET body = ? WHERE no = ?", row.body, row.no)
    place.sql("UPDATE root SET sealed = ?", seal_root(new_key, vault_id, (epoch + 1, 1), changed))
    place.sql("UPDATE state SET epoch = ?, generation = 1", epoch + 1)


def test_a_key_store_that_does_not_answer_is_no_old_copy():
    entries = {}
    store = MemoryKeyStore(entries)
    Anchor(store, bytes(16), lambda: 0.0).move((1, 7), bytes(16))
    store.locked = True
    for optional in (False, True):  # True: the phrase opened the vault, so it is no news
        anchor = Anchor(store, bytes(16), lambda: 0.0)
        anchor.check((1, 3), bytes(16), optional=optional)
        assert bool(anchor.warning) is not optional
        assert not anchor.is_old_copy
    store.locked = False
    anchor = Anchor(store, bytes(16), lambda: 0.0)
    anchor.check((1, 3), bytes(16), optional=True)
    assert anchor.is_old_copy
    anchor.reset((1, 3), bytes(16))
    assert not anchor.is_old_copy


def test_read_each_gives_what_read_gives_or_the_error(opened):
    first, second = opened.add([draft(), draft()])
    name = next(iter(first.blobs))
    asked = [(first.id, name), ("0" * 32, name), (second.id, "none"), ("no id", name)]
    found = opened.read_each([*asked, (second.id, name)])
    assert [found[0], found[4]] == [opened.read(first.id, name), opened.read(second.id, name)]
    for (record_id, blob), error in zip(asked[1:], found[1:4], strict=True):
        with pytest.raises(type(error)) as raised:
            opened.read(record_id, blob)
        assert str(raised.value) == str(error)
    assert [type(each) for each in found[1:4]] == [NotFoundError, NotFoundError, BadValueError]
    for file in (opened.path / "blobs").rglob("*"):
        if file.is_file():
            file.unlink()
    gone = opened.read_each([(first.id, name), (second.id, name)])
    assert [type(each) for each in gone] == [DamagedError] * 2
    assert opened.read_each([]) == []
