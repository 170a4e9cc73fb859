"""Backup, restore, verify, repair, files, as commands: what they print, and how they end."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from safelight.cli import copies, upkeep
from safelight.exits import ExitStatus, UsageError, exit_status
from vault import (
    BadValueError,
    BlobDraft,
    DamagedError,
    Draft,
    Kind,
    LockedError,
    NotFoundError,
    PhraseUnlock,
    create,
    open_vault,
    passphrase_secret,
)

PASSPHRASE = "correct horse"
PROMPT = "canary orchard"


def commands() -> typer.Typer:
    app = typer.Typer()
    for verb in (copies.backup, copies.restore, upkeep.verify, upkeep.repair, upkeep.files):
        app.command(verb.__name__)(verb)
    return app


def draft(data: bytes = b"pixels") -> Draft:
    blob = BlobDraft("picture", Kind.PICTURE, "image/png", data)
    return Draft(Kind.PICTURE, {"prompt": PROMPT}, [blob])


class Home:
    """A home with a vault of two pictures behind a passphrase, and its recovery phrase."""

    def __init__(self, path: Path) -> None:
        self.path, self.vault = path, path / "vault"
        phrases: list[str] = []
        secret = passphrase_secret(PASSPHRASE)

        def confirm(phrase) -> None:
            phrases.append(phrase.text())

        with create(self.vault, keystore=None, passphrase=secret, confirm=confirm) as opened:
            self.ids = [record.id for record in opened.add([draft(), draft(bytes(40_000))])]
        (path / "secret").write_text(PASSPHRASE)
        (path / "phrase").write_text(phrases[0])
        (path / "wrong").write_text("wrong horse")
        self.phrase = phrases[0]

    def run(self, verb: str, *words: object, vault: Path | None = None, opener: str = "phrase"):
        """Run a verb in this process, without a terminal; errors come back in the result."""
        option = "--phrase-file" if opener == "phrase" else "--passphrase-file"
        unlock = ["--vault", str(vault or self.vault), option, str(self.path / opener)]
        env = {"SAFELIGHT_HOME": str(self.path / "home")}
        return CliRunner(env=env).invoke(commands(), [verb, *map(str, words), *unlock])

    def prompts(self, path: Path) -> list[str]:
        """Open a vault with the phrase, read its pictures, and return their prompts."""
        with open_vault(path, PhraseUnlock(self.phrase)) as opened:
            for record in opened.list():
                assert opened.read(record.id, "picture")
            return [record.metadata["prompt"] for record in opened.list()]

    def file(self, largest: bool = True) -> Path:
        """Return one of the two sealed files."""
        files = sorted((self.vault / "blobs").glob("*/*"), key=lambda each: each.stat().st_size)
        return files[-1 if largest else 0]


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def good(done):
    """Return the JSON lines of a command that ended well."""
    assert done.exit_code == 0, (done.exception, done.stderr)
    return [json.loads(text) for text in done.stdout.splitlines()]


def lines(done):
    return [json.loads(text) for text in done.stdout.splitlines()]


def test_backup_and_restore_are_lines_of_json(home, tmp_path):
    (made,) = good(home.run("backup", tmp_path / "b", "--json"))
    assert {key: made[key] for key in ("full", "records", "files", "copied", "removed")} == {
        "full": True,
        "records": 2,
        "files": 2,
        "copied": 2,
        "removed": 0,
    }
    assert made["target"] == str(tmp_path / "b")
    (made,) = good(home.run("backup", tmp_path / "b", "--json"))
    assert made["copied"] == made["copied_bytes"] == 0
    new = tmp_path / "new"
    (made,) = good(home.run("restore", tmp_path / "b", "--json", vault=new))
    assert (made["records"], made["files"], made["replaced"]) == (2, 2, None)
    assert home.prompts(new) == [PROMPT, PROMPT]


def test_a_deep_backup_says_what_it_copied_again(home, tmp_path):
    good(home.run("backup", tmp_path / "b"))
    path = next((tmp_path / "b" / "blobs").glob("*/*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (made,) = good(home.run("backup", tmp_path / "b", "--json"))
    assert (made["deep"], made["copied"], made["healed"]) == (False, 0, 0)
    done = home.run("backup", tmp_path / "b", "--deep")
    assert "1 files of the earlier backup were damaged and are copied again" in done.stderr
    (made,) = good(home.run("backup", tmp_path / "b", "--deep", "--json"))
    assert (made["deep"], made["copied"], made["healed"]) == (True, 0, 0)


def test_for_people_a_backup_is_a_sentence_and_nothing_is_on_standard_output(home, tmp_path):
    done = home.run("backup", tmp_path / "b")
    assert done.stdout == ""
    assert "2 records" in done.stderr
    assert "2 new files" in done.stderr
    done = home.run("backup", tmp_path / "i", "--index")
    assert "index" in done.stderr
    assert not list((tmp_path / "i" / "blobs").glob("*/*"))


def test_a_backup_restores_with_the_phrase_where_the_passphrase_is_forgotten(home, tmp_path):
    good(home.run("backup", tmp_path / "b", opener="phrase"))
    done = home.run("restore", tmp_path / "b", vault=tmp_path / "new", opener="wrong")
    assert isinstance(done.exception, LockedError)
    assert not (tmp_path / "new").exists()
    good(home.run("restore", tmp_path / "b", vault=tmp_path / "new", opener="phrase"))
    with open_vault(tmp_path / "new", PhraseUnlock(home.phrase)) as opened:
        assert len(list(opened.list())) == 2


def test_a_restore_replaces_nothing_unless_asked_and_then_moves_it_aside(home, tmp_path):
    good(home.run("backup", tmp_path / "b"))
    with open_vault(home.vault, PhraseUnlock(home.phrase)) as opened:
        opened.add([draft(b"made after the backup")])
    done = home.run("restore", tmp_path / "b")
    assert isinstance(done.exception, BadValueError)
    assert "--replace" in done.exception.hint
    assert len(home.prompts(home.vault)) == 3
    (made,) = good(home.run("restore", tmp_path / "b", "--replace", "--json"))
    aside = Path(made["replaced"])
    assert aside.name.startswith("vault.replaced-")
    assert len(home.prompts(home.vault)) == 2
    assert len(home.prompts(aside)) == 3
    assert {each.name for each in tmp_path.iterdir() if each.is_dir()} == {"vault", "b", aside.name}


def test_a_restore_that_fails_leaves_the_vault_where_it_was(home, tmp_path):
    good(home.run("backup", tmp_path / "b"))
    next((tmp_path / "b" / "blobs").glob("*/*")).unlink()
    done = home.run("restore", tmp_path / "b", "--replace")
    assert isinstance(done.exception, DamagedError)
    assert len(home.prompts(home.vault)) == 2
    problem, made = good(home.run("restore", tmp_path / "b", "--replace", "--partial", "--json"))
    assert problem["problem"] == "missing"
    assert problem["record"] in home.ids
    assert made["files"] == made["problems"] == 1


def test_a_restore_that_was_ended_before_it_took_its_place_is_named(home, tmp_path):
    good(home.run("backup", tmp_path / "b"))
    waiting = tmp_path / "vault.restoring"
    good(home.run("restore", tmp_path / "b", vault=waiting))
    done = home.run("restore", tmp_path / "b", "--replace")
    assert isinstance(done.exception, UsageError)
    assert str(waiting) in str(done.exception)
    assert len(home.prompts(waiting)) == len(home.prompts(home.vault)) == 2


def test_restoring_from_nowhere_is_not_found(home, tmp_path):
    done = home.run("restore", tmp_path / "nowhere", vault=tmp_path / "new")
    assert isinstance(done.exception, NotFoundError)


def test_verify_says_that_all_is_well(home):
    (summary,) = good(home.run("verify", "--json"))
    assert (summary["records"], summary["files"], summary["problems"]) == (2, 2, 0)
    done = home.run("verify", "--deep")
    assert done.stdout == ""
    assert "opened" in done.stderr


def test_verify_lists_the_damage_and_ends_with_status_4(home):
    path = home.file()
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    home.file(largest=False).unlink()
    done = home.run("verify", "--deep", "--json")
    assert exit_status(done.exception) is ExitStatus.DAMAGED
    assert str(done.exception) == "2 of 2 records are damaged"
    *problems, summary = lines(done)
    assert {each["problem"] for each in problems} == {"damaged", "missing"}
    assert {each["record"] for each in problems} == set(home.ids)
    assert summary["problems"] == 2
    done = home.run("verify")
    assert str(done.exception) == "1 of 2 records is damaged"
    (row,) = done.stdout.splitlines()
    assert row.startswith("missing")
    assert PROMPT not in done.stdout + done.stderr


def test_verify_ends_with_status_4_for_what_does_not_belong_there_too(home):
    (home.vault / "letter.txt").write_text("mine")
    done = home.run("verify")
    assert exit_status(done.exception) is ExitStatus.DAMAGED
    assert "letter.txt" in done.stdout


def test_repair_shows_what_it_would_do_and_does_it_with_yes(home):
    (home.vault / "VAULT").write_bytes(bytes(64))
    orphan = home.vault / "blobs" / "ab" / ("ab" * 16)
    orphan.write_bytes(bytes(1000))
    done = home.run("repair", "--json")
    *_problems, summary = good(done)
    assert (summary["done"], summary["header"], summary["orphans"]) == (False, True, 1)
    assert "--yes" in done.stderr
    assert orphan.exists()
    *problems, summary = good(home.run("repair", "--yes", "--json", opener="phrase"))
    assert problems == []
    assert (summary["done"], summary["header"], summary["orphan_bytes"]) == (True, True, 1000)
    assert not orphan.exists()
    assert len(home.prompts(home.vault)) == 2


def test_repair_with_nothing_to_do_says_so(home):
    done = home.run("repair", "--yes")
    assert done.exit_code == 0
    assert "nothing to mend" in done.stderr


def test_repair_ends_with_status_4_when_damage_stays(home):
    home.file().write_bytes(b"")
    assert home.run("repair").exit_code == 0
    done = home.run("repair", "--yes")
    assert exit_status(done.exception) is ExitStatus.DAMAGED
    assert str(done.exception) == "1 record is damaged"


def test_files_lists_the_vault_and_what_lies_outside(home):
    (home.path / "home" / "cache").mkdir(parents=True)
    (home.path / "home" / "cache" / "hashes.json").write_bytes(bytes(77))
    (home.path / "home" / "config.toml").write_text("")
    rows = {row["path"]: row for row in good(home.run("files", "--json"))}
    assert {"VAULT", "index.sqlite", "lock", "blobs/", "incoming/"} <= set(rows)
    assert rows["blobs/"]["count"] == 2
    assert rows[str(home.path / "home" / "cache")]["bytes"] == 77
    assert rows[str(home.path / "home" / "config.toml")]["count"] == 1
    assert rows[str(home.path / "home" / "models")]["count"] == 0
    every = [row["path"] for row in good(home.run("files", "--all", "--json"))]
    names = {f"blobs/{each.parent.name}/{each.name}" for each in home.vault.glob("blobs/*/*")}
    assert names <= set(every)
    for row in home.run("files").stdout.splitlines():
        assert len(row.split("\t")) == 5


def test_without_a_terminal_a_missing_passphrase_is_one_sentence(home, tmp_path, monkeypatch):
    monkeypatch.delenv("SAFELIGHT_PASSPHRASE_FILE", raising=False)
    good(home.run("backup", tmp_path / "b"))
    words = ["restore", str(tmp_path / "b"), "--vault", str(tmp_path / "new")]
    env = {"SAFELIGHT_HOME": str(tmp_path / "home")}
    done = CliRunner(env=env).invoke(commands(), words)
    assert isinstance(done.exception, LockedError)
    assert "--passphrase-file" in done.exception.hint
    done = CliRunner(env=env).invoke(commands(), [*words, "--phrase"])
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "new").exists()
