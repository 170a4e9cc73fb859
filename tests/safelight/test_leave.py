"""Everything out: sealed under a passphrase of its own, or in the clear after a loud warning."""

import _thread
import io
import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from safelight.cli import leave
from safelight.exits import UsageError
from vault import (
    BadValueError,
    BlobDraft,
    DamagedError,
    Draft,
    Kind,
    MemoryKeyStore,
    PassphraseUnlock,
    create,
    open_vault,
    passphrase_secret,
)
from vault.archive import read_archive

PASSPHRASE = "correct horse"
OWN = "the archive's own words"
PIXELS = b"the picture's own bytes"
PROMPT = "canary orchard"


def commands() -> typer.Typer:
    app = typer.Typer()
    app.command("archive")(leave.archive)
    app.command("takeout")(leave.takeout)
    return app


def drafts() -> list[Draft]:
    blobs = (
        BlobDraft("picture", Kind.PICTURE, "image/png", PIXELS),
        BlobDraft("thumbnail", Kind.THUMBNAIL, "image/webp", b"small"),
        BlobDraft("input", Kind.INPUT, "image/jpeg", b"drawing"),
        BlobDraft("latents", Kind.INPUT, "application/octet-stream", b""),
    )
    return [
        Draft(Kind.PICTURE, {"prompt": PROMPT, "tags": ["größe"]}, blobs),
        Draft(Kind.ATTEMPT, {"prompt": "failed one"}),
        Draft(Kind.PICTURE, {"prompt": "in the trash"}, blobs[:1]),
    ]


@pytest.fixture
def vault(tmp_path):
    """Return an open vault with a picture, an attempt and a picture in the trash."""
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda _: None) as opened:
        records = opened.add(drafts())
        opened.trash([records[2].id])
        yield opened


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a folder with a vault behind a passphrase, and the files that hold passphrases."""
    home = tmp_path_factory.mktemp("home")
    secret = passphrase_secret(PASSPHRASE)
    with create(home / "vault", keystore=None, passphrase=secret, confirm=lambda _: None) as opened:
        records = opened.add(drafts())
        opened.trash([records[2].id])
    (home / "secret").write_text(PASSPHRASE)
    (home / "own").write_text(OWN)
    return home


def run(home: Path, verb: str, *words: str):
    """Run a verb in this process, without a terminal."""
    unlock = ["--vault", str(home / "vault"), "--passphrase-file", str(home / "secret")]
    return CliRunner().invoke(commands(), [verb, *words, *unlock])


def run_on_terminal(home: Path, answers: list[tuple[str, str]], *words: str) -> tuple[int, str]:
    """Run a verb on a terminal of its own, answer each question, give its status and its words."""
    program = "from tests.safelight.test_leave import commands\ncommands()()"
    unlock = ["--vault", str(home / "vault"), "--passphrase-file", str(home / "secret")]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", program, *words, *unlock]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = ""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        for question, answer in answers:
            seen = len(said)
            while question not in said[seen:]:
                assert select.select([terminal], [], [], 60)[0], f"no question; {said}"
                said += os.read(ours, 4096).decode()
            terminal.write(answer.encode() + b"\n")
        status = process.wait(timeout=60)
        while select.select([terminal], [], [], 0)[0]:
            try:
                said += os.read(ours, 4096).decode()
            except OSError:  # the other side is closed
                break
    return status, said


class Person(io.StringIO):
    """Stand for somebody who reads along and presses Ctrl-C once, on seeing a word."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def write(self, text: str) -> int:
        if self._word and self._word in text:
            self._word = ""
            _thread.interrupt_main(signal.SIGINT)
        return super().write(text)


def test_archive_seals_all_under_its_own_passphrase_with_a_reader_beside(home, tmp_path):
    file = tmp_path / "all.archive"
    words = ("--archive-passphrase-file", str(home / "own"), "--with-reader", "--json")
    done = run(home, "archive", str(file), *words)
    assert done.exit_code == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == {
        "archive": str(file),
        "records": 3,
        "blobs": 5,
        "bytes": 2 * len(PIXELS) + len(b"small") + len(b"drawing"),
        "file_bytes": file.stat().st_size,
    }
    prompts = {each.metadata["prompt"] for each in read_archive(file, passphrase_secret(OWN))}
    assert prompts == {PROMPT, "failed one", "in the trash"}
    reader = tmp_path / "archive_reader.py"
    assert "Open a safelight archive" in reader.read_text("utf-8")
    assert sorted(tmp_path.iterdir()) == [file, reader]


def test_archive_refuses_before_it_asks_or_opens_anything(home, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    done = run(home, "archive", str(taken))
    assert isinstance(done.exception, BadValueError)
    assert taken.read_text() == "mine"
    done = run(home, "archive", str(tmp_path / "new"))
    assert isinstance(done.exception, UsageError)
    assert "--archive-passphrase-file" in done.exception.hint
    (tmp_path / "archive_reader.py").write_text("other")
    own = ("--archive-passphrase-file", str(home / "own"))
    done = run(home, "archive", str(tmp_path / "new"), *own, "--with-reader")
    assert isinstance(done.exception, UsageError)
    assert (tmp_path / "archive_reader.py").read_text() == "other"
    assert not (tmp_path / "new").exists()


def test_archive_asks_twice_and_takes_only_the_same_words(home, tmp_path):
    file = tmp_path / "asked.archive"
    asks = [("new passphrase", OWN), ("once more", OWN + "x")]
    status, said = run_on_terminal(home, asks, "archive", str(file))
    assert status != 0
    assert OWN not in said
    assert not file.exists()
    asks = [("new passphrase", OWN), ("once more", OWN)]
    status, said = run_on_terminal(home, asks, "archive", str(file))
    assert status == 0, said
    assert OWN not in said
    assert len(list(read_archive(file, passphrase_secret(OWN)))) == 3


def test_control_c_leaves_no_archive(home, tmp_path, monkeypatch):
    said = Person("reading back")
    monkeypatch.setattr("sys.stderr", said)
    words = ["archive", str(tmp_path / "x"), "--archive-passphrase-file", str(home / "own")]
    unlock = ["--vault", str(home / "vault"), "--passphrase-file", str(home / "secret")]
    assert commands()([*words, *unlock], standalone_mode=False) == 130
    assert "no archive was written" in said.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_control_c_keeps_what_is_taken_and_says_how_many(home, tmp_path, monkeypatch):
    out, said, lines = tmp_path / "out", io.StringIO(), Person('"id"')
    monkeypatch.setattr("sys.stderr", said)
    monkeypatch.setattr("sys.stdout", lines)
    unlock = ["--vault", str(home / "vault"), "--passphrase-file", str(home / "secret")]
    words = ["takeout", str(out), "--yes", "--json", *unlock]
    assert commands()(words, standalone_mode=False) == 130
    (line,) = lines.getvalue().splitlines()
    assert {path.name for path in out.iterdir()} == {"README.txt", *json.loads(line)["files"]}
    assert "1 of 3 records are in" in said.getvalue()


def test_takeout_needs_a_yes(home, tmp_path):
    done = run(home, "takeout", str(tmp_path / "out"))
    assert isinstance(done.exception, UsageError)
    assert "--yes" in done.exception.hint
    status, said = run_on_terminal(
        home, [("Type yes", "perhaps")], "takeout", str(tmp_path / "out")
    )
    assert status != 0
    assert "TAKEOUT WRITES THE WHOLE VAULT IN THE CLEAR" in said
    assert not (tmp_path / "out").exists()


def test_takeout_writes_everything_and_says_so_first(home, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o755)
    done = run(home, "takeout", str(out), "--yes", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("TAKEOUT WRITES THE WHOLE VAULT IN THE CLEAR")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["kind"] for line in lines) == ["attempt", "picture", "picture"]
    files = [file for line in lines for file in line["files"]]
    assert {path.name for path in out.iterdir()} == {"README.txt", *files}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    unlock = PassphraseUnlock(passphrase_secret(PASSPHRASE))
    with open_vault(home / "vault", unlock) as opened:
        for line in lines:
            notes = opened.get(line["id"]).metadata.get("disclosed", [])
            ways = {note["way"] for note in notes}
            assert ways == ({"takeout"} if line["kind"] == "picture" else set())


def test_a_taken_record_is_its_json_and_its_files_without_thumbnails(vault, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    taken = {line["id"]: line["files"] for line in leave.take_out(vault, out)}
    (record,) = vault.list()
    document = json.loads((out / taken[record.id][-1]).read_text("utf-8"))
    assert document["metadata"] == record.metadata
    assert document["metadata"]["tags"] == ["größe"]
    assert (document["created"], document["trashed"]) == (record.created, None)
    blobs = {blob["name"]: blob for blob in document["blobs"]}
    contents = {"picture": PIXELS, "input": b"drawing", "latents": b""}
    assert blobs.keys() == contents.keys()
    for name, data in contents.items():
        assert (out / blobs[name]["file"]).read_bytes() == data
        assert blobs[name]["sha256"] == sha256(data).hexdigest()
    assert [Path(file).suffix for file in taken[record.id]] == [".png", ".jpg", ".bin", ".json"]
    (gone,) = vault.list(trashed=True)
    assert json.loads((out / taken[gone.id][-1]).read_text("utf-8"))["trashed"] == gone.trashed
    (attempt,) = vault.list(kinds=[Kind.ATTEMPT])
    assert [Path(file).suffix for file in taken[attempt.id]] == [".json"]


def test_a_picture_is_noted_before_its_first_file_is_there(vault, tmp_path):
    with pytest.raises(FileNotFoundError):
        list(leave.take_out(vault, tmp_path / "not made"))
    noted = [r for t in (False, True) for r in vault.list(trashed=t) if r.metadata.get("disclosed")]
    assert len(noted) == 1  # the one whose file could not be written; none came after it


def test_stopping_keeps_what_is_finished(vault, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    taking = leave.take_out(vault, out)
    first = next(taking)
    taking.close()
    assert {path.name for path in out.iterdir()} == set(first["files"])


def test_a_damaged_record_is_left_out_and_the_others_come(home, tmp_path):
    unlock = PassphraseUnlock(passphrase_secret(PASSPHRASE))
    bad = b"\xff" * 100_000
    with open_vault(home / "vault", unlock) as opened:
        blob = BlobDraft("picture", Kind.PICTURE, "image/png", bad)
        (record,) = opened.add([Draft(Kind.PICTURE, {}, [blob])])
        big = max((home / "vault" / "blobs").glob("*/*"), key=lambda path: path.stat().st_size)
        big.write_bytes(bytes(big.stat().st_size))
    try:
        done = run(home, "takeout", str(tmp_path / "out"), "--yes")
        assert isinstance(done.exception, DamagedError)
        assert "1 of 4" in str(done.exception)
        assert record.id in done.stderr
        assert "3 of 4 records are in" in done.stderr
        assert len(list((tmp_path / "out").glob("*.json"))) == 3
        assert not list((tmp_path / "out").glob(f"*{record.id}*"))
    finally:
        with open_vault(home / "vault", unlock) as opened:
            opened.delete([record.id])


def test_takeout_takes_no_folder_that_holds_something_and_none_inside_the_vault(home, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "full", tmp_path / "file", home / "vault" / "out"):
        done = run(home, "takeout", str(target), "--yes")
        assert isinstance(done.exception, UsageError), done.exception
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    assert not (home / "vault" / "out").exists()
