"""Which key store is chosen: from the fixed list, whatever the environment says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vault.secret_service import session_environment
from vault.errors import KeyStoreAbsentError, UnsupportedFormatError
from vault.keystore import keystore_by_number, keystore_name
from vault.keystore.allowlist import ALLOW_LIST
from vault.keystore.kernel import KernelKeyStore
from vault.keystore.memory import MemoryKeyStore

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux's key stores")

# Prints the class of the error, whether it was told within a second, the message and the hint.
FIND = """
import sys, time
from vault.errors import VaultError
from vault.keystore import find_keystore
started = time.monotonic()
try:
    print(type(find_keystore()).__name__)
except VaultError as error:
    print(type(error).__name__, time.monotonic() - started < 1.0)
    print(error)
    print(error.hint)
print(sorted(name for name in sys.modules if name.startswith("keyring")))
"""


def find_with(home: Path, **env: str) -> list[str]:
    """Run `find_keystore` in a child with a bare environment and `env`."""
    child = subprocess.run(
        [sys.executable, "-c", FIND],
        env=session_environment(home) | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert child.stderr == ""
    return child.stdout.splitlines()


def test_the_table_of_numbers_is_this_one_for_ever():
    assert {number: keystore_name(number) for number in range(7)} == {
        0: "memory (for tests)",
        1: "macOS Keychain",
        2: "Windows Credential Manager",
        3: "Secret Service (GNOME Keyring, KeePassXC, KWallet)",
        4: "Secret Service by libsecret",
        5: "KWallet",
        6: "Linux kernel keyring",
    }
    assert (MemoryKeyStore.number, MemoryKeyStore.name) == (0, keystore_name(0))
    assert (KernelKeyStore.number, KernelKeyStore.name) == (6, keystore_name(6))


def test_the_allow_list_names_no_back_end_that_drops_or_scatters_keys():
    classes = {(back_end.module, back_end.class_name) for back_end in ALLOW_LIST}
    assert classes == {
        ("keyring.backends.macOS", "Keyring"),
        ("keyring.backends.Windows", "WinVaultKeyring"),
        ("keyring.backends.SecretService", "Keyring"),
        ("keyring.backends.libsecret", "Keyring"),
        ("keyring.backends.kwallet", "DBusKeyring"),
    }


@pytest.mark.parametrize("number", [-1, 7, 255, 2**31])
def test_a_number_outside_the_table_is_an_unknown_format(number):
    for ask in (keystore_name, keystore_by_number):
        with pytest.raises(UnsupportedFormatError, match=f"key store {number},"):
            ask(number)


def test_the_memory_store_is_never_opened_by_number():
    with pytest.raises(KeyStoreAbsentError, match="test"):
        keystore_by_number(0)


@LINUX
@pytest.mark.parametrize("number", [1, 2])
def test_a_key_on_another_system_is_explained(number):
    with pytest.raises(KeyStoreAbsentError, match="linux") as caught:
        keystore_by_number(number)
    assert keystore_name(number) in str(caught.value)
    assert "recovery phrase" in caught.value.hint


@LINUX
@pytest.mark.parametrize("number", [3, 4, 5])
def test_a_pinned_store_that_is_not_there_is_explained(number, monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    with pytest.raises(KeyStoreAbsentError, match="no session bus") as caught:
        keystore_by_number(number)
    assert keystore_name(number) in str(caught.value)


@LINUX
def test_without_a_bus_the_choices_are_listed_within_a_second(tmp_path):
    error, message, hint, loaded = find_with(tmp_path)
    assert error == "KeyStoreAbsentError True"
    assert message.count("no session bus") == 1
    for choice in ("--passphrase-file", "--ephemeral", "Secret Service"):
        assert choice in hint
    assert loaded == "[]"  # the keyring library is not even imported


@LINUX
@pytest.mark.parametrize(
    "address",
    [
        "unix:path=/nowhere/at/all",
        "unix:abstract=/safelight/nobody/listens/here",
        "unix:path=" + "x" * 200,
        "unix:runtime=yes",
        "unix:",
        "garbage",
        ";;;",
        "tcp:host=127.0.0.1,port=1",
        "autolaunch:",
        "unixexec:path=/usr/bin/touch,argv1=started",
        "unix:path=/nowhere;tcp:host=127.0.0.1,port=1",
    ],
)
def test_an_address_where_no_bus_is_means_absent(address, tmp_path):
    error, message, *_ = find_with(tmp_path, DBUS_SESSION_BUS_ADDRESS=address)
    assert error == "KeyStoreAbsentError True"
    local = all(part.startswith("unix:") for part in address.split(";") if part)
    assert ("nothing answers at" if local else "not a local socket") in message
    assert not (tmp_path / "started").exists()


@LINUX
@pytest.mark.parametrize(
    "name",
    [
        "keyring.backends.null.Keyring",
        "keyring.backends.fail.Keyring",
        "keyring.backends.chainer.ChainerBackend",
        "keyrings.alt.file.PlaintextKeyring",
        "planted.Keyring",
    ],
)
def test_neither_environment_nor_configuration_chooses_a_back_end(name, tmp_path):
    """Without a real store there is none, and the class that was named is not even loaded."""
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w').close()")
    environment = session_environment(tmp_path)
    configured = Path(environment["XDG_CONFIG_HOME"], "python_keyring", "keyringrc.cfg")
    configured.parent.mkdir(parents=True)
    configured.write_text(f"[backend]\ndefault-keyring={name}\nkeyring-path={tmp_path}\n")
    found = find_with(tmp_path, PYTHON_KEYRING_BACKEND=name, PYTHONPATH=str(tmp_path))
    assert found[0] == "KeyStoreAbsentError True"
    assert not (tmp_path / "loaded").exists()


def test_the_seam_is_cheap_to_import():
    code = "import sys, vault.keystore; print('keyring' in sys.modules, 'ctypes' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "False False\n"
