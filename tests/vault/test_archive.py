"""Archives: what goes in comes out, whatever was changed is refused, and nothing half is left."""

import ast
import hashlib
import hmac
import io
import json
import os
import stat
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

import vault
from tests.vault.conftest import CANARY, draft
from vault import archive_reader
from vault.archive import read_archive, write_archive
from vault.archive_reader import ReaderError
from vault.errors import (
    BadValueError,
    DamagedError,
    NotFoundError,
    StorageError,
    WrongPassphraseError,
)
from vault.frame import frame
from vault.passphrase import passphrase_secret

PASSPHRASE = "an orchard of its own, größer"  # in NFC
SECRET = passphrase_secret(PASSPHRASE)
HEADER = 122  # FORMAT.md, "Archive"
RECORD, PIECE, END = 1, 2, 3


# A second reading of FORMAT.md: just enough to open, take apart and forge archives.


def key_of(data: bytes) -> bytes:
    """Derive the item key as FORMAT.md says, with other code than the reader's."""
    salt, memory, passes, lanes = struct.unpack(">16sIBB", data[36:58])
    root = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory
    ).derive(PASSPHRASE.encode())
    assert data[58:90] == hmac.digest(root, b"safelight/archive/1 check\x01", "sha512")[:32]
    return hmac.digest(root, b"safelight/archive/1 items\x01", "sha512")[:32]


def split(data: bytes) -> list[bytes]:
    """Return the sealed items of an archive's bytes."""
    items, at = [], HEADER
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
        items.append(data[at:end])
        at = end
    return items


def opened(data: bytes, key: bytes) -> list[tuple[int, bytes]]:
    """Return kind and payload of every item."""
    found = []
    for number, item in enumerate(split(data)):
        aad = data[:HEADER] + struct.pack(">QB", number, item[0])
        plain = AESGCM(key).decrypt(item[5:17], item[17:], aad)
        length = int.from_bytes(plain[:8], "big")
        assert not any(plain[8 + length :])
        found.append((item[0], plain[8 : 8 + length]))
    return found


def forge(items: list[tuple[int, bytes]], header: bytes = bytes(HEADER)) -> tuple[bytes, bytes]:
    """Seal items as someone with the passphrase could; return the file and its key."""
    key, data = bytes(range(32)), header
    for number, (kind, payload) in enumerate(items):
        nonce = os.urandom(12)
        aad = header + struct.pack(">QB", number, kind)
        framed = frame(payload, metadata=kind != PIECE)
        sealed = nonce + AESGCM(key).encrypt(nonce, framed, aad)
        data += struct.pack(">BI", kind, len(sealed)) + sealed
    return data, key


def read_under(data: bytes, key: bytes) -> list[tuple[dict, list[bytes]]]:
    """Read an archive's items with a key that is known: no derivation."""
    stream = io.BytesIO(data)
    return list(archive_reader.records(stream, stream.read(HEADER), key))


def end(records: int, pieces: int, size: int) -> tuple[int, bytes]:
    return END, b'{"records":%d,"pieces":%d,"bytes":%d}' % (records, pieces, size)


def record(*blobs: bytes, **other) -> tuple[int, bytes]:
    document = {
        "id": "ab" * 16,
        "kind": "picture",
        "created": "2026-11-24T12:00:00.000Z",
        "trashed": None,
        "metadata": {},
        "blobs": [
            {
                "name": f"blob{number}",
                "kind": "picture",
                "media_type": "image/png",
                "length": len(blob),
                "sha256": hashlib.sha256(blob).hexdigest(),
            }
            for number, blob in enumerate(blobs)
        ],
    }
    return RECORD, json.dumps(document | other).encode()


def unpack(file: Path, folder: Path, passphrase: str = PASSPHRASE) -> int:
    """Run the reader's command in this process; return its exit status.

    The passphrase comes decomposed and with a line end, as some keyboards and editors write it.
    """
    secret = folder.with_name("secret")
    secret.write_bytes(unicodedata.normalize("NFD", passphrase).encode() + b"\r\nmore")
    return archive_reader.main([str(file), str(folder), "--passphrase-file", str(secret)])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Iterator[tuple[bytes, bytes]]:
    """Return an archive of two small records, and its key."""
    folder = tmp_path_factory.mktemp("small")
    store = vault.MemoryKeyStore()
    with vault.create(folder / "vault", keystore=store, confirm=lambda _: None) as source:
        source.add([draft("first", b"pixels"), draft("second", b"")])
        write_archive(source, folder / "small.archive", SECRET)
    data = (folder / "small.archive").read_bytes()
    return data, key_of(data)


# What goes in comes out


def test_every_record_comes_back_whole(make, folder):
    place, target = make(), folder / "all.archive"
    big = os.urandom(3 << 20)
    blobs = [
        vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", big),
        vault.BlobDraft("thumbnail", vault.Kind.THUMBNAIL, "image/webp", b""),
        vault.BlobDraft("input", vault.Kind.INPUT, "image/jpeg", b"drawing"),
    ]
    metadata = {"prompt": 'Äpfel\n"rot" 🍎\u2028', "seed": 2**62, "deep": {"a": [1, None, 0.1]}}
    with place.open() as source:
        (first,) = source.add([vault.Draft(vault.Kind.PICTURE, metadata, blobs)])
        kinds = [kind for kind in vault.Kind if kind < 128]
        others = source.add([draft(kind.name, kind=kind) for kind in kinds])
        (gone,) = source.trash([others[0].id])
        seen: list[tuple[int, int]] = []
        report = write_archive(source, target, SECRET, progress=lambda *step: seen.append(step))
        expected = {r.id: r for r in [first, gone, *others[1:]]}
    assert (report.records, report.blobs) == (len(kinds) + 1, len(kinds) + 3)
    assert report.bytes == len(big) + 7 + 6 * len(kinds)
    assert seen == [(n + 1, 2 * len(expected)) for n in range(2 * len(expected))]
    found = {each.id: each for each in read_archive(target, SECRET)}
    assert found.keys() == expected.keys()
    for record_id, each in found.items():
        want = expected[record_id]
        assert (each.kind, each.created, each.trashed) == (want.kind, want.created, want.trashed)
        assert (each.metadata, each.blobs) == (want.metadata, want.blobs)
    assert [found[first.id].data[blob.name] for blob in blobs] == [blob.data for blob in blobs]
    assert found[gone.id].trashed is not None
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir() if "archive" in path.name] == [target.name]


def test_the_reader_writes_the_same_and_the_file_shows_nothing(make, folder):
    place, target = make(), folder / "one.archive"
    with place.open() as source:
        (kept,) = source.add([draft(CANARY, b"canary pixels" * 9)])
        write_archive(source, target, SECRET)
    data = target.read_bytes()
    for secret in (CANARY.encode(), b"canary", b"picture", b"image/png", kept.id.encode()):
        assert secret not in data
    (each,) = read_archive(target, SECRET)
    assert unpack(target, folder / "out") == 0
    stem = f"{kept.created[:10]}_{kept.id}"
    assert {path.name for path in (folder / "out").iterdir()} == {f"{stem}.json", f"{stem}_1.png"}
    assert (folder / "out" / f"{stem}_1.png").read_bytes() == each.data["picture"]
    document = json.loads((folder / "out" / f"{stem}.json").read_text("utf-8"))
    assert document["metadata"] == each.metadata
    assert document["blobs"][0]["file"] == f"{stem}_1.png"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder / "out").iterdir()}
    assert (modes, stat.S_IMODE((folder / "out").stat().st_mode)) == ({0o600}, 0o700)
    assert unpack(target, folder / "new", "another orchard") == 3
    with pytest.raises(WrongPassphraseError):
        list(read_archive(target, passphrase_secret("another orchard")))
    assert not (folder / "new").exists()


def test_an_empty_vault_is_an_archive_of_nothing(make, folder):
    with make().open() as source:
        report = write_archive(source, folder / "none.archive", SECRET)
    assert (report.records, report.blobs, report.bytes) == (0, 0, 0)
    assert list(read_archive(folder / "none.archive", SECRET)) == []


def test_the_format_is_the_documents(small):
    data, key = small
    assert data[:20] == b"safelight archive\n\0\1"
    assert data[90:122] == hashlib.sha256(data[:90]).digest()
    items = opened(data, key)
    assert [kind for kind, _ in items] == [RECORD, RECORD, PIECE, END]
    assert items[3] == end(2, 1, 6)
    assert items[2][1] == b"pixels"
    newer, older = (json.loads(payload) for _, payload in items[:2])
    assert (newer["metadata"]["prompt"], older["metadata"]["prompt"]) == ("second", "first")
    assert newer["blobs"][0]["length"] == 0


def test_the_sizes_in_the_file_are_rounded(small):
    assert [(len(item) - 33) % 256 for item in split(small[0]) if item[0] != PIECE] == [0, 0, 0]


# What was changed is refused


def test_every_changed_byte_is_refused(small):
    data, key = small
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1 << at % 8
        if at < HEADER:
            with pytest.raises(ReaderError) as caught:
                archive_reader.unlock(bytes(bent[:HEADER]), b"the right one or not")
            assert caught.value.status == 4  # known before anything is derived
        with pytest.raises(ReaderError) as caught:
            read_under(bytes(bent), key)
        assert caught.value.status == 4


def test_every_truncation_is_cut_short(small):
    data, key = small
    for length in range(HEADER):
        with pytest.raises(ReaderError, match="cut short"):
            archive_reader.unlock(data[:length], PASSPHRASE.encode())
    for length in range(HEADER, len(data)):
        with pytest.raises(ReaderError, match="cut short"):
            read_under(data[:length], key)


def test_items_moved_doubled_removed_or_added_are_refused(small):
    data, key = small
    items = split(data)
    for order in ("01233", "01223", "1023", "03", "3", "123", "00123", "013", "023"):
        bent = data[:HEADER] + b"".join(items[int(number)] for number in order)
        with pytest.raises(ReaderError):
            read_under(bent, key)
    with pytest.raises(ReaderError, match="follows the end"):
        read_under(data + b"\0", key)


def test_an_item_of_another_archive_is_refused_even_under_the_same_key():
    blobs = [b"one", b"two"]
    files = [
        forge([record(blob), (PIECE, blob), end(1, 1, 3)], bytes((number,)) * HEADER)
        for number, blob in enumerate(blobs)
    ]
    (first, key), (second, _) = files
    assert read_under(second, key)[0][1] == [b"two"]
    mixed = split(first)
    mixed[1] = split(second)[1]
    with pytest.raises(ReaderError, match="misplaced"):
        read_under(first[:HEADER] + b"".join(mixed), key)


@pytest.mark.parametrize(
    "items",
    [
        [record(b"ab"), end(1, 0, 2)],
        [record(b"ab"), (PIECE, b"a"), (PIECE, b"b"), end(1, 2, 2)],
        [record(b"ab"), (PIECE, b"abc"), end(1, 1, 3)],
        [record(b"ab"), (PIECE, b"ac"), end(1, 1, 2)],
        [record(b"ab"), (PIECE, b"ab"), (PIECE, b"ab"), end(1, 2, 4)],
        [record(b"ab"), record(b"ab"), (PIECE, b"ab"), (PIECE, b"ab"), end(2, 2, 4)],
        [(PIECE, b"ab"), end(0, 1, 2)],
        [record(), end(0, 0, 0)],
        [record(), end(2, 0, 0)],
        [end(0, 0, 1)],
        [record(id="../" * 10 + "ab")],
        [record(created="/etc/passwd")],
        [record(blobs=[{"length": -1, "sha256": "", "media_type": "image/png"}])],
        [
            record(blobs=[{"length": 1 << 70, "sha256": "", "media_type": "x"}]),
            end(1, 0, 0),
        ],
        [record(blobs={"length": 0})],
        [(RECORD, b"["), end(1, 0, 0)],
        [(RECORD, b"[" * 100_000), end(1, 0, 0)],
        [(RECORD, b"\xff"), end(1, 0, 0)],
        [(RECORD, b"null"), end(1, 0, 0)],
    ],
)
def test_what_only_a_holder_of_the_passphrase_can_bend_is_refused_as_well(items):
    with pytest.raises(ReaderError):
        read_under(*forge(items))


@pytest.mark.parametrize(
    ("kind", "length"),
    [(0, 29), (4, 29), (255, 300), (1, 28), (2, 0), (1, (2 << 20) + 29), (2, 1 << 31), (3, 4125)],
)
def test_a_hostile_kind_or_length_is_refused_before_it_is_read(small, kind, length):
    class Stream(io.BytesIO):
        def read(self, size=-1):
            assert 0 <= size <= HEADER, f"{size} bytes were asked for"
            return super().read(size)

    stream = Stream(small[0][:HEADER] + struct.pack(">BI", kind, length) + bytes(4096))
    with pytest.raises(ReaderError, match="kind or length"):
        list(archive_reader.records(stream, stream.read(HEADER), small[1]))


@pytest.mark.parametrize(
    "cost", [(1 << 16, 3, 0), (1 << 16, 255, 4), (0, 3, 4), (0xFFFFFFFF, 3, 4), (1 << 16, 3, 255)]
)
def test_a_hostile_cost_is_refused_before_memory_is_taken(small, cost):
    head = small[0][:52] + struct.pack(">IBB", *cost) + small[0][58:90]
    with pytest.raises(ReaderError, match="cost"):
        archive_reader.unlock(head + hashlib.sha256(head).digest(), b"x")


def test_a_newer_format_is_not_called_damaged(small):
    head = small[0][:18] + b"\0\2" + small[0][20:90]
    with pytest.raises(ReaderError, match="format 2"):
        archive_reader.unlock(head + hashlib.sha256(head).digest(), b"x")


def test_a_frame_with_other_padding_is_refused():
    data, key = forge([end(0, 0, 0)])
    header, nonce = data[:HEADER], bytes(12)
    for framed in (
        frame(end(0, 0, 0)[1], metadata=False),
        frame(end(0, 0, 0)[1], metadata=True)[:-1] + b"x",
        b"\xff" * 256,
        b"short",
    ):
        sealed = nonce + AESGCM(key).encrypt(nonce, framed, header + struct.pack(">QB", 0, END))
        with pytest.raises(ReaderError, match="padded"):
            read_under(header + struct.pack(">BI", END, len(sealed)) + sealed, key)


payloads = st.sampled_from([record(), record(b"ab"), record(b"", b"c"), end(0, 0, 0), end(1, 1, 2)])
pieces = st.sampled_from([b"ab", b"c", b"", b"abc"]).map(lambda data: (PIECE, data))


def model(items: list[tuple[int, bytes]]) -> bool:
    """Say whether FORMAT.md allows these items: records, each with its pieces, and the true end."""
    rest, count, parts, size = list(items), 0, 0, 0
    while rest and rest[0][0] == RECORD:
        count += 1
        for blob in json.loads(rest.pop(0)[1])["blobs"]:
            if blob["length"] == 0:
                continue
            kind, data = rest.pop(0) if rest else (END, b"")
            if kind != PIECE or hashlib.sha256(data).hexdigest() != blob["sha256"]:
                return False
            parts, size = parts + 1, size + len(data)
    return rest == [end(count, parts, size)]


@settings(max_examples=150, deadline=None)
@given(st.lists(payloads | pieces, max_size=5))
def test_the_reader_accepts_exactly_what_the_format_allows(items):
    data, key = forge(items)
    if model(items):
        assert len(read_under(data, key)) == sum(kind == RECORD for kind, _ in items)
    else:
        with pytest.raises(ReaderError):
            read_under(data, key)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_end_in_another_error(data):
    with pytest.raises(ReaderError):
        archive_reader.unlock(data, b"x")
    with pytest.raises(ReaderError):
        read_under(bytes(HEADER) + data, bytes(32))


def test_damage_leaves_nothing_written_and_its_own_status(small, folder, capsys):
    data, _ = small
    file, out = folder / "bent.archive", folder / "out"
    for bent, word in ((data[:-1], "cut short"), (data[:-1] + b"\xff", "damaged")):
        file.write_bytes(bent)
        assert unpack(file, out) == 4
        assert word in capsys.readouterr().err
        assert not out.exists()
        with pytest.raises(DamagedError, match=word):
            list(read_archive(file, SECRET))


# Nothing half is left, and nothing is overwritten


def test_what_exists_is_not_overwritten(place, folder):
    taken = folder / "taken"
    taken.write_bytes(b"mine")
    (folder / "link").symlink_to(folder / "nowhere")
    with place.open() as source:
        for target in (taken, folder / "link", place.path / "inside"):
            with pytest.raises(BadValueError):
                write_archive(source, target, SECRET)
    assert taken.read_bytes() == b"mine"
    assert not (folder / "nowhere").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["link", "taken", "vault1"]


def test_a_name_that_is_taken_while_it_writes_stays_the_others(place, folder):
    target = folder / "raced.archive"

    def race(_done, _total):
        target.write_bytes(b"faster")

    with place.open() as source, pytest.raises(BadValueError, match="exists already"):
        write_archive(source, target, SECRET, progress=race)
    assert target.read_bytes() == b"faster"
    assert len(list(folder.glob(".*partial*"))) == 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_leaves_nothing(place, folder, after):
    done: list[int] = []
    with place.open() as source:
        report = write_archive(
            source,
            folder / "no.archive",
            SECRET,
            progress=lambda step, _: done.append(step),
            cancelled=lambda: len(done) >= after,
        )
    assert report is None
    assert len(done) == after
    assert [path.name for path in folder.iterdir()] == ["vault1"]


def test_an_interrupt_leaves_nothing(place, folder):
    def stop(_done, _total):
        raise KeyboardInterrupt

    with place.open() as source, pytest.raises(KeyboardInterrupt):
        write_archive(source, folder / "no.archive", SECRET, progress=stop)
    assert [path.name for path in folder.iterdir()] == ["vault1"]


def test_what_the_disk_spoils_is_found_before_the_name_is_given(place, folder):
    def spoil(done, _total):
        if done == 1:  # of the first record, all but the last few kilobytes are in the file
            (partial,) = folder.glob(".*partial*")
            with partial.open("r+b") as stream:
                stream.seek(5000)
                (byte,) = stream.read(1)
                stream.seek(5000)
                stream.write(bytes((byte ^ 1,)))

    with place.open() as source:
        source.add([draft("newest", b"\xff" * 300_000)])
        with pytest.raises(StorageError, match="does not read back"):
            write_archive(source, folder / "no.archive", SECRET, progress=spoil)
    assert [path.name for path in folder.iterdir()] == ["vault1"]


def test_a_file_system_without_links_gets_its_archive(place, folder, monkeypatch):
    def refuse(*_args, **_more):
        raise PermissionError(1, "Operation not permitted")  # what FAT says

    monkeypatch.setattr(os, "link", refuse)
    target = folder / "fat.archive"
    raced = folder / "raced.archive"
    with place.open() as source:
        write_archive(source, target, SECRET)
        with pytest.raises(BadValueError, match="exists already"):
            write_archive(
                source, raced, SECRET, progress=lambda _done, _total: raced.write_bytes(b"faster")
            )
    assert raced.read_bytes() == b"faster"
    assert len(list(read_archive(target, SECRET))) == 2
    assert {path.name for path in folder.iterdir()} == {target.name, raced.name, place.path.name}


def test_a_folder_that_is_not_there_is_said(place, folder):
    with place.open() as source, pytest.raises(StorageError, match="No such file"):
        write_archive(source, folder / "no" / "x.archive", SECRET)
    with pytest.raises(NotFoundError):
        list(read_archive(folder / "no.archive", SECRET))
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadValueError, match="regular"):
        list(read_archive(folder / "pipe", SECRET))


# The vault meanwhile, and its damage


def test_records_deleted_or_moved_meanwhile_are_neither_doubled_nor_missed(make, folder):
    place = make()
    target = folder / "busy.archive"
    with place.open() as source, place.open() as other:
        ids = [record.id for record in source.add([draft(str(n)) for n in range(4)])]
        source.trash([ids[0]])

        def meddle(done, _total):
            if done == 1:  # the trash was read: its record comes out, another goes in
                other.untrash([ids[0]])
                other.trash([ids[3]])
            elif done == 2:  # listed with the first one outside the trash, and not read yet
                other.delete([ids[1]])

        report = write_archive(source, target, SECRET, progress=meddle)
    found = [each.id for each in read_archive(target, SECRET)]
    assert sorted(found) == sorted([ids[0], ids[2], ids[3]])
    assert report.records == 3


def test_a_damaged_record_is_named_and_no_archive_is_left(place, folder):
    with place.open() as source:
        (blob, *_) = (path for path in (place.path / "blobs").glob("*/*"))
        blob.write_bytes(bytes(blob.stat().st_size))
        ids = [record.id for record in source.list()]
        with pytest.raises(DamagedError) as caught:
            write_archive(source, folder / "no.archive", SECRET)
    assert any(record_id in str(caught.value) for record_id in ids)
    assert [path.name for path in folder.iterdir()] == ["vault1"]


# The reader is a program of its own


def test_the_reader_is_one_short_file_that_needs_only_cryptography():
    source = Path(archive_reader.__file__).read_text("utf-8")
    assert len(source.splitlines()) < 200
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or ".").split(".")[0])
    assert roots - sys.stdlib_module_names == {"cryptography"}


def test_the_reader_runs_alone_and_asks_for_nothing_of_ours(small, folder):
    copy, file, out = (folder / name for name in ("archive_reader.py", "a.archive", "out"))
    copy.write_bytes(Path(archive_reader.__file__).read_bytes())
    file.write_bytes(small[0])
    (folder / "secret").write_text(PASSPHRASE)
    words = [sys.executable, "-I", str(copy), str(file), str(out)]
    words += ["--passphrase-file", str(folder / "secret")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(list(out.glob("*.json"))) == 2
    again = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "not a new or empty folder" in again.stderr
    words[-3:] = ["asked"]
    asked = subprocess.run(
        words,
        cwd=folder,
        input=PASSPHRASE + "\n",
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # without a terminal, it asks on standard input
    )
    assert asked.returncode == 0
    assert {path.name for path in (folder / "asked").iterdir()} == {p.name for p in out.iterdir()}


def test_the_reader_says_what_is_wrong_with_its_arguments(small, folder):
    assert unpack(folder / "none.archive", folder / "out") == 2
    (folder / "a.archive").write_bytes(small[0])
    (folder / "file").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        unpack(folder / "a.archive", folder / "file")
    assert caught.value.code == 2
    assert (folder / "file").read_text() == "mine"
