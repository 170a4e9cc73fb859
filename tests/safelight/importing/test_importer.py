"""Folders come in whole: sealed as they are, compared, once; hostile files stop nothing."""

import json
import os

import pytest
from typer.testing import CliRunner

from safelight.cli import app
from safelight.exits import UsageError, exit_status
from safelight.importing import Duplicate, Importer, Refused, Source, Taken
from safelight.importing.folder import find_pictures, read_sources
from safelight.importing.originals import remove_originals
from tests.safelight.importing.samples import SAMPLES, png
from vault import MemoryKeyStore, PassphraseUnlock, create, open_vault, passphrase_secret

COUNT = len(SAMPLES) + 1  # of different pictures in `folder`
WORDS = "a passphrase of a test"


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    """Give a folder with every sample, two of them twice, and with what is none."""
    top = tmp_path / "pictures"
    (top / "deep" / "er").mkdir(parents=True)
    for number, (name, (data, _, _)) in enumerate(sorted(SAMPLES.items())):
        (top / ("deep/er" if number % 2 else ".") / name).write_bytes(data)
    (top / "twin.PNG").write_bytes(SAMPLES["comfy.png"][0])
    (top / "cut.png").write_bytes(png()[:-40])
    (top / "text.jpg").write_text("no picture")
    (top / "empty.webp").write_bytes(b"")
    (top / "log.html").write_text("<p>prompts")
    (top / ".hidden.png").write_bytes(png())
    (top / "link.png").symlink_to(top / "twin.PNG")
    (top / "loop").symlink_to(top)
    os.mkfifo(top / "pipe.png")
    odd = os.fsdecode(b"odd \xff name.png")  # a name that is no text
    (top / odd).write_bytes(png({"parameters": "odd"}))
    return top


def sources(folder):
    return read_sources(folder, find_pictures(folder).pictures)


def test_every_file_is_sealed_as_it_is_and_a_second_time_nothing(vault, folder):
    events = list(Importer(vault).take(sources(folder)))
    taken = {each.name: each for each in events if isinstance(each, Taken)}
    assert len(taken) == COUNT
    assert {each.name for each in events if isinstance(each, Refused)} == {
        "cut.png",
        "text.jpg",
        "empty.webp",
        "pipe.png",
    }
    (twin,) = (each for each in events if isinstance(each, Duplicate))
    assert twin.record_id in {each.record_id for each in taken.values()}
    for name, each in taken.items():
        record = vault.get(each.record_id)
        assert vault.read(each.record_id, "picture") == (folder / name).read_bytes()
        assert vault.read(each.record_id, "thumbnail")[:4] == b"RIFF"
        assert record.metadata["imported"]["file"] == name.replace("\udcff", "?")
        assert record.metadata["imported"]["modified"].startswith("20")
    again = list(Importer(vault).take(sources(folder)))
    assert not [each for each in again if isinstance(each, Taken)]
    assert len(list(vault.list())) == COUNT


def test_what_was_stopped_goes_on(vault, folder):
    stream = Importer(vault).take(sources(folder))
    for event in stream:
        if isinstance(event, Taken):
            break
    stream.close()
    done = len(list(vault.list()))
    assert 0 < done <= 16
    rest = [each for each in Importer(vault).take(sources(folder)) if isinstance(each, Taken)]
    assert len(rest) == COUNT - done


def test_a_trial_reads_and_seals_nothing(folder):
    events = list(Importer(None).take(sources(folder)))
    assert {each.record_id for each in events if isinstance(each, Taken)} == {""}
    assert len([each for each in events if isinstance(each, Duplicate)]) == 1


def test_originals_go_only_if_the_vault_has_their_very_bytes(vault, folder):
    taken = [e for e in Importer(vault).take(sources(folder)) if not isinstance(e, Refused)]
    (folder / taken[0].name).write_bytes(b"edited since")
    (folder / taken[1].name).unlink()
    said = dict(remove_originals(vault, folder, taken))
    assert said.pop(taken[0].name) == "it has changed since it was imported"
    assert (folder / taken[0].name).read_bytes() == b"edited since"
    assert set(said) == {each.name for each in taken[2:]}
    assert set(said.values()) == {""}
    assert not any((folder / name).exists() for name in said)
    assert (folder / "log.html").exists()
    assert (folder / "cut.png").exists()


def test_too_large_a_file_is_one_sentence(tmp_path, vault):
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate((64 << 20) + 1)
    (event,) = Importer(vault).take(read_sources(tmp_path, ["big.png"]))
    assert event == Refused("big.png", "it has 67108865 bytes, more than 67108864")
    with pytest.raises(FileNotFoundError):
        find_pictures(tmp_path / "gone")
    (event,) = Importer(vault).take(read_sources(tmp_path, ["gone.png"]))
    assert event == Refused("gone.png", "it cannot be read: No such file or directory")


def test_a_batch_is_bounded_by_bytes_too(vault):
    files = [Source(name=str(k), data=png({"k": str(k)})) for k in range(3)]
    events = list(Importer(vault, batch_bytes=1).take(files))
    assert [event.name for event in events] == ["0", "1", "2"]
    assert len({record.id for record in vault.list()}) == 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a runner and its vault's folder."""
    home = tmp_path_factory.mktemp("place")
    (home / "secret").write_text(WORDS + "\n")
    secret = passphrase_secret(WORDS)
    create(home / "vault", keystore=None, passphrase=secret, confirm=lambda _: None).close()
    names = {"HOME": "", "VAULT": "vault", "PASSPHRASE_FILE": "secret"}
    env = {f"SAFELIGHT_{name}": str(home / path) for name, path in names.items()}
    return CliRunner(env=env), home / "vault"


def test_the_verb_says_what_it_does_and_removes_only_when_told(place, folder):
    runner, path = place
    words = ["import", str(folder), "--json"]
    dry = runner.invoke(app, [*words, "--dry-run"])
    assert dry.exit_code == 0, dry.exception
    assert "nothing was sealed" in dry.stderr
    refused = runner.invoke(app, [*words, "--remove-originals"])
    assert exit_status(refused.exception) == 2
    done = runner.invoke(app, words)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [line["outcome"] for line in lines]
    assert (outcomes.count("taken"), outcomes.count("refused")) == (COUNT, 4)
    assert f"{COUNT} taken, {COUNT} of them with words" in done.stderr
    assert "an SSD keeps old blocks" in done.stderr
    assert "1 other files" in done.stderr
    assert (folder / "twin.PNG").exists()
    gone = runner.invoke(app, [*words, "--remove-originals", "--yes"])
    assert f"{COUNT + 1} originals are removed" in gone.stderr
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        ".hidden.png",
        "cut.png",
        "empty.webp",
        "log.html",
        "text.jpg",
    ]
    with open_vault(path, PassphraseUnlock(passphrase_secret(WORDS))) as vault:
        assert len(list(vault.list())) == COUNT
        (found,) = (r for r in vault.search("lighthouse 'comfy.webp'".replace("'", "")))
        assert found.metadata["imported"]["program"] == "ComfyUI"
    listed = runner.invoke(app, ["ls", "--json", "--limit", "1"])
    assert json.loads(listed.stdout)["width"] == 48
    again = runner.invoke(app, ["reproduce", found.id])
    assert "is no picture that was drawn here" in str(again.exception)


def test_an_empty_folder_and_one_that_is_not_there(place, tmp_path):
    runner, _ = place
    assert "no PNG, JPEG or WebP file" in runner.invoke(app, ["import", str(tmp_path)]).stderr
    gone = runner.invoke(app, ["import", str(tmp_path / "gone")])
    assert exit_status(gone.exception) == 5


def test_a_folder_with_too_many_entries_is_refused(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").touch()
    with pytest.raises(UsageError, match="more than 2 entries"):
        find_pictures(tmp_path, most=2)
