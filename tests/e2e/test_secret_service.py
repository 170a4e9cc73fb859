"""The main job with its key in a real Secret Service: gnome-keyring-daemon on a bus of its own."""

import shutil

import pytest

from tests.e2e.command import QUICK, Home
from tests.vault.secret_service import require_secret_service, secret_service

pytestmark = pytest.mark.keyring


def test_a_vault_in_the_keyring_needs_no_passphrase_and_opens_only_there(tmp_path):
    require_secret_service()
    with secret_service(tmp_path / "session") as session:
        (tmp_path / "home").mkdir()
        home = Home(tmp_path / "home", {**session.env, "HOME": str(tmp_path / "session")})
        home.run("init", "--keyring", "--recovery-file", str(tmp_path / "phrase"))
        (made,) = home.lines("generate", "red apple", "--seed", "1", *QUICK)
        assert [each["id"] for each in home.lines("ls")] == [made["id"]]
        (told,) = home.lines("status")
        assert told["state"] == "unlocked"
        assert any("keyring" in each or "secret" in each.casefold() for each in told["opens_with"])
        session.lock()
        assert "locked" in home.run("ls", status=3).stderr
        # The phrase opens it all the same, and the locked keyring is neither news nor an old copy.
        done = home.run("vault", "verify", "--phrase-file", str(tmp_path / "phrase"))
        assert "warning" not in done.stderr
    # The bus and its keyring are gone now: another login, a stolen disk.
    away = Home(home.path, {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"})
    assert "hint:" in away.run("ls", status=3).stderr
    (told,) = away.lines("status")
    assert told["state"].startswith("locked")


def test_the_environment_cannot_choose_another_back_end(tmp_path):
    require_secret_service()
    with secret_service(tmp_path / "session") as session:
        (tmp_path / "home").mkdir()
        null = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
        home = Home(tmp_path / "home", {**session.env, **null})
        home.run("init", "--keyring", "--recovery-file", str(tmp_path / "phrase"))
        names = {attributes.get("service", "") for attributes, _ in session.items()}
        assert any(name.startswith("safelight.vault.") for name in names)


def keks(session):
    """Return the entries of keys that the keyring holds for vaults."""
    names = [attributes.get("service", "") for attributes, _ in session.items()]
    return sorted(name for name in names if ".kek." in name)


def test_a_purge_shreds_the_key_in_the_real_keyring(tmp_path):
    require_secret_service()
    with secret_service(tmp_path / "session") as session:
        (tmp_path / "home").mkdir()
        home = Home(tmp_path / "home", {**session.env, "HOME": str(tmp_path / "session")})
        home.run("init", "--keyring", "--recovery-file", str(tmp_path / "phrase"))
        home.run("generate", "red apple", "-n", "2", *QUICK)
        first, second = [line["id"] for line in home.lines("ls")]
        home.run("trash", first)
        old = home.path / "old copy"
        shutil.copytree(home.vault, old)
        before = keks(session)
        (receipt,) = home.lines("purge", "--yes")
        assert (receipt["records"], receipt["shredded"]) == (1, True)
        assert len(keks(session)) == len(before) == 1
        assert keks(session) != before
        assert [line["id"] for line in home.lines("ls")] == [second]
        # With the current keyring the old folder opens no more.
        away = home.run("ls", "--vault", str(old), status=3)
        assert "no key" in away.stderr

        # Passphrase mode: both are needed, and each alone is not enough.
        (tmp_path / "secret").write_text("a passphrase of a test\n")
        words = ("--new-passphrase-file", str(tmp_path / "secret"))
        home.run("vault", "passphrase", "set", "--both", *words)
        assert "passphrase" in home.run("ls", status=3).stderr
        with_both = Home(home.path, {**home.environ, "SAFELIGHT_PASSPHRASE_FILE": words[1]})
        assert len(with_both.lines("ls")) == 1
        assert with_both.lines("purge")[0]["shredded"]
        assert len(keks(session)) == 1

        # A lost keyring: the phrase enrols it again.
        with_both.run("vault", "passphrase", "remove")
        session.delete_all()
        assert "recovery phrase" in home.run("ls", status=3).stderr
        home.run("vault", "recover", "--phrase-file", str(tmp_path / "phrase"))
        assert len(home.lines("ls")) == 1
        assert len(keks(session)) == 1
