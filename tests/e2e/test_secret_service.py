"""The main job with its key in a real Secret Service: gnome-keyring-daemon on a bus of its own."""

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
