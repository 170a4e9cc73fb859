"""The real command changes who opens the vault, deletes, shreds, and says what it did."""

import json
import os
import shutil

import pytest

from tests.e2e.command import QUICK, Home, make_home

NEW = "an entirely new passphrase"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return a home with three pictures, to be copied by each test."""
    home = make_home(tmp_path_factory.mktemp("drawn") / "home")
    home.run("generate", "red apple", "-n", "3", *QUICK)
    return home


@pytest.fixture
def home(drawn, tmp_path):
    path = tmp_path / "home"
    shutil.copytree(drawn.path, path)
    environ = {"SAFELIGHT_PASSPHRASE_FILE": str(path / "user" / "passphrase")}
    return Home(path, environ)


def ids(home, *more):
    return [line["id"] for line in home.lines("ls", *more)]


def with_passphrase(home, file):
    return Home(home.path, {"SAFELIGHT_PASSPHRASE_FILE": str(file)})


def test_empty_the_trash_then_purge(home):
    first, second, third = ids(home)
    home.run("trash", first[:8], second[:8])
    refused = home.run("trash", "--empty", status=2)
    assert "--yes" in refused.stderr
    home.run("trash", "--empty", "--yes")
    assert home.lines("trash", "--ls") == []
    home.run("show", first, status=5)
    home.run("untrash", first, status=5)
    old = home.path / "old"
    shutil.copytree(home.vault, old)
    (receipt,) = home.lines("purge")
    assert (receipt["epoch"], receipt["records"], receipt["shredded"]) == (2, 0, True)
    assert any("passphrase" in sentence for sentence in receipt["remaining"])
    assert ids(home) == [third]


def test_purge_takes_the_trash_with_it_and_asks_first(home):
    first, *rest = ids(home)
    home.run("trash", first)
    assert "cannot be undone" in home.run("purge", status=2).stderr
    assert len(home.lines("trash", "--ls")) == 1
    (receipt,) = home.lines("purge", "--yes")
    assert (receipt["records"], receipt["files"]) == (1, 2)
    assert ids(home) == rest
    assert len(list((home.vault / "blobs").glob("*/*"))) == 2 * len(rest)


def test_a_strict_purge_renews_phrase_and_passphrase(home):
    user = home.path / "user"
    (user / "new").write_text(NEW + "\n")
    words = (
        "--recovery-file",
        str(user / "new phrase"),
        "--new-passphrase-file",
        str(user / "new"),
    )
    assert "--strict" in home.run("purge", *words, status=2).stderr
    home.run("purge", "--strict", *words)
    home.run("ls", status=3)
    renewed = with_passphrase(home, user / "new")
    assert len(ids(renewed)) == 3
    home.run("vault", "rotate", "--phrase-file", str(user / "phrase"), status=4)
    home.run("vault", "rotate", "--phrase-file", str(user / "new phrase"))


def test_the_passphrase_is_changed_and_a_forgotten_one_replaced(home):
    user = home.path / "user"
    (user / "new").write_text(NEW + "\n")
    home.run("vault", "passphrase", "set", "--new-passphrase-file", str(user / "new"), status=2)
    home.run("vault", "passphrase", "change", "--new-passphrase-file", str(user / "new"))
    wrong = home.run("ls", status=3)
    assert "does not open" in wrong.stderr
    home.run(
        *("vault", "passphrase", "change", "--phrase-file", str(user / "phrase")),
        *("--new-passphrase-file", str(user / "passphrase")),
    )
    assert len(ids(home)) == 3
    refused = home.run("vault", "passphrase", "remove", status=2)
    assert "key store" in refused.stderr


def test_recover_without_a_key_store_wants_a_passphrase(home):
    user = home.path / "user"
    (user / "new").write_text(NEW + "\n")
    without = home.run("vault", "recover", "--phrase-file", str(user / "phrase"), status=3)
    assert "--new-passphrase" in without.stderr
    home.run(
        *("vault", "recover", "--phrase-file", str(user / "phrase")),
        *("--new-passphrase-file", str(user / "new")),
    )
    assert len(ids(with_passphrase(home, user / "new"))) == 3
    home.run("ls", status=3)


@pytest.mark.parametrize(
    ("spoil", "said", "status"),
    [
        (lambda text: text[:7] + ("A" if text[7] != "A" else "B") + text[8:], "mistyped", 3),
        (lambda text: "7HVWA-" * 7 + "7HVWA", "mistyped", 3),
        (lambda text: text[:20], "characters", 3),
    ],
)
def test_a_bad_phrase_is_one_sentence(home, spoil, said, status):
    user = home.path / "user"
    (user / "typed").write_text(spoil((user / "phrase").read_text().strip()))
    done = home.run("vault", "rotate", "--phrase-file", str(user / "typed"), status=status)
    assert said in done.stderr
    assert (user / "typed").read_text() not in done.stderr


def test_rotation_deep_and_retention(home):
    (receipt,) = home.lines("vault", "rotate", "--deep")
    assert receipt["pages"] == 1
    before = ids(home)
    assert home.lines("vault", "retention", "--max-count", "2", "--dry-run")[0]["trashed"]
    assert ids(home) == before
    assert home.lines("vault", "retention")[0]["max_count"] is None
    (kept,) = home.lines("vault", "retention", "--max-count", "2", "--apply")
    assert kept["trashed"] == before[2:]
    home.run("generate", "blue cat face", *QUICK)
    assert len(ids(home)) == 2
    assert home.lines("vault", "retention", "--off")[0]["max_count"] is None
    home.run("vault", "retention", "--max-bytes", "plenty", status=2)
    home.run("vault", "retention", "--apply", "--dry-run", status=2)


def test_nothing_of_it_lands_in_arguments_or_output(home):
    """Receipts and messages name secrets by their kind, never by their text."""
    user = home.path / "user"
    done = home.run("purge", "--json")
    text = done.stdout + done.stderr
    for secret in ((user / "phrase").read_text(), (user / "passphrase").read_text()):
        assert secret.strip() not in text
    assert json.loads(done.stdout)["remaining"]
    assert os.access(user / "phrase", os.R_OK)
