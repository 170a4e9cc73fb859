"""The real Secret Service: gnome-keyring-daemon on a private session bus, without a window."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.vault.secret_service import (
    PATIENCE,
    SecretService,
    require_secret_service,
    secret_service,
    session_bus,
    session_environment,
)
from vault.keystore.entry import anchor_entry, kek_entry

pytestmark = pytest.mark.keyring

VAULT = bytes(range(16))
ENTRY = kek_entry(VAULT, bytes(8))
VALUE = bytes(range(32))

# What a child may use. `attempt` prints one line: a value, or the class and message of an error,
# and then `slow` if it took longer than the limit without a terminal allows.
PRELUDE = f"""
import sys, time
from vault.errors import VaultError
from vault.keystore import find_keystore, keystore_by_number
from vault.keystore.allowlist import back_end_numbered
from vault.keystore.system import SystemKeyStore, TimeLimits
ENTRY, VALUE = {ENTRY!r}, {VALUE!r}
def attempt(work):
    started = time.monotonic()
    try:
        answer = work()
        shown = answer.hex() if isinstance(answer, bytes) else repr(answer)
    except VaultError as error:
        shown = f"{{type(error).__name__}}: {{error}}"
    slow = " slow" if time.monotonic() - started > 4 else ""
    print(shown + slow, flush=True)
"""
FOUND = "SystemKeyStore('Secret Service (GNOME Keyring, KeePassXC, KWallet)')"


@pytest.fixture(autouse=True)
def _programs():
    require_secret_service()


@pytest.fixture
def service(tmp_path):
    with secret_service(tmp_path) as session:
        yield session


def lines(session: SecretService, code: str, **options) -> list[str]:
    """Run `code` after the prelude in the session; return what it printed."""
    finished = session.python(PRELUDE + code, **options)
    assert finished.stderr == ""
    assert finished.returncode == 0
    return finished.stdout.splitlines()


@contextmanager
def child(session: SecretService, code: str):
    """Start `code` after the prelude; it may wait for lines on its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code],
        env=session.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def go_on(process) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def race(session: SecretService, code: str, count: int) -> list[list[str]]:
    """Run `code` in `count` processes that go on together; return what each printed.

    Each reads its number, prints `ready` and waits for another line before it goes on.
    """
    command = [sys.executable, "-c", PRELUDE + code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, env=session.env, **pipes) for _ in range(count)]
    try:
        for number, racer in enumerate(racers):
            racer.stdin.write(f"{number}\n")
            racer.stdin.flush()
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * count
        for racer in racers:
            go_on(racer)
        return [racer.communicate(timeout=60)[0].splitlines() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_set_get_replace_delete(service):
    code = """
store = find_keystore()
attempt(lambda: (store.number, store.name))
attempt(lambda: store.get(ENTRY))
attempt(lambda: store.set(ENTRY, b"first"))
attempt(lambda: store.set(ENTRY, VALUE))
attempt(lambda: keystore_by_number(3).get(ENTRY))
"""
    assert lines(service, code) == [
        "(3, 'Secret Service (GNOME Keyring, KeePassXC, KWallet)')",
        "None",
        "None",
        "None",
        VALUE.hex(),
    ]
    attributes = {"service": ENTRY, "username": "safelight", "application": "safelight"}
    found = [(values.items() >= attributes.items(), value) for values, value in service.items()]
    assert found == [(True, VALUE.hex().encode())]
    code = "store = find_keystore()\nfor _ in range(2): attempt(lambda: store.delete(ENTRY))\n"
    assert lines(service, code + "attempt(lambda: store.get(ENTRY))") == ["None"] * 3
    assert service.items() == []


def test_entries_do_not_touch_each_other(service):
    with service.collection() as collection:
        other = {"service": "a mail program", "username": "safelight"}
        collection.create_item("mail", other, b"of others")
    code = f"""
store = find_keystore()
store.set({anchor_entry(VAULT)!r}, b"anchor")
store.set(ENTRY, VALUE)
store.delete(ENTRY)
attempt(lambda: store.get({anchor_entry(VAULT)!r}))
"""
    assert lines(service, code) == [b"anchor".hex()]
    assert sorted(value for _, value in service.items()) == [b"616e63686f72", b"of others"]


def test_the_key_outlives_the_daemon(service):
    lines(service, "find_keystore().set(ENTRY, VALUE)")
    service.kill_daemon()
    service.start_daemon()
    assert lines(service, "attempt(lambda: find_keystore().get(ENTRY))") == [VALUE.hex()]


def test_duplicates_that_others_made_are_all_deleted(service):
    with service.collection() as collection:
        for number in range(3):  # another attribute makes another item of the same entry
            attributes = {"service": ENTRY, "username": "safelight", "copy": str(number)}
            collection.create_item("copy", attributes, VALUE.hex().encode())
    assert len(service.items()) == 3
    code = "attempt(lambda: find_keystore().delete(ENTRY))\n"
    assert lines(service, code + "attempt(lambda: find_keystore().get(ENTRY))") == ["None"] * 2
    assert service.items() == []


def test_twenty_processes_at_once_make_one_key_and_lose_none(service):
    """All set one entry to one value, as the racing inits do, and each an entry of its own."""
    code = f"""
import importlib
importlib.import_module("keyring.backends.SecretService")
number = int(sys.stdin.readline())
own = ENTRY[:-2] + format(number, "02x")
print("ready", flush=True)
sys.stdin.readline()
patient = TimeLimits(answer=60, prompt=0)  # 20 processes on a busy machine
store = SystemKeyStore(back_end_numbered(3), patient)
store.set({anchor_entry(VAULT)!r}, VALUE)
store.set(own, bytes([number + 1]))
attempt(lambda: store.get({anchor_entry(VAULT)!r}))
attempt(lambda: store.get(own))
"""
    printed = race(service, code, 20)
    assert printed == [[VALUE.hex(), f"{number + 1:02x}"] for number in range(20)]
    names = [attributes["service"] for attributes, _ in service.items()]
    assert len(names) == len(set(names)) == 21


def test_twenty_processes_that_create_one_vault_make_one_vault_and_one_key(service, tmp_path):
    """VAULT: twenty racing processes make one vault and one key; the others are told so."""
    code = f"""
from vault import KeyStoreUnlock, create, open_vault
int(sys.stdin.readline())
print("ready", flush=True)
sys.stdin.readline()
store = SystemKeyStore(back_end_numbered(3), TimeLimits(answer=60, prompt=0))
try:
    create({str(tmp_path / "vault")!r}, keystore=store, confirm=lambda phrase: None).close()
    print("made")
except VaultError as error:
    print(type(error).__name__, error)
with open_vault({str(tmp_path / "vault")!r}, KeyStoreUnlock(store)) as vault:
    print(vault.status().vault_id)
"""
    printed = race(service, code, 20)
    ids = {lines[1] for lines in printed}
    assert len(ids) == 1
    assert [lines[0] for lines in printed].count("made") == 1
    told = {lines[0] for lines in printed} - {"made"}
    assert told == {"BadValueError a vault exists there already"}
    names = sorted(attributes["service"].split(".", 3)[3] for attributes, _ in service.items())
    assert len(names) == 2
    assert names[0] == "anchor"
    assert names[1].startswith("kek.")


def test_a_locked_keyring_is_locked_and_no_hang(service):
    """Without a display nothing asks; the pinned store is there, and each call says locked."""
    lines(service, "find_keystore().set(ENTRY, VALUE)")
    service.lock()
    code = """
attempt(find_keystore)
store = keystore_by_number(3)
attempt(lambda: store.get(ENTRY))
attempt(lambda: store.set(ENTRY, b"other"))
attempt(lambda: store.delete(ENTRY))
"""
    locked = "KeyStoreLockedError: Secret Service (GNOME Keyring, KeePassXC, KWallet) is locked"
    assert lines(service, code) == [locked] * 4
    service.kill_daemon()
    service.start_daemon()
    assert lines(service, "attempt(lambda: find_keystore().get(ENTRY))") == [VALUE.hex()]


def test_a_window_that_cannot_open_is_a_dismissed_one(service):
    """DISPLAY names a screen that is not there: the desktop's prompter gives up at once."""
    service.lock()
    code = "attempt(lambda: find_keystore().get(ENTRY))"
    (shown,) = lines(service, code, env={"DISPLAY": ":99"})
    assert shown.startswith("KeyStoreLockedError: the keyring is locked, and its window was")


def test_a_window_that_nobody_answers_is_given_up(service):
    """The prompter is one that takes the question and never answers."""
    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
    name = "org.gnome.keyring.SystemPrompter"
    service.lock()
    with closing(open_dbus_connection(service.address)) as prompter:
        prompter.send_and_get_reply(new_method_call(bus, "RequestName", "su", (name, 4)))
        code = """
store = SystemKeyStore(back_end_numbered(3), TimeLimits(answer=3, prompt=1))
attempt(lambda: store.get(ENTRY))
"""
        shown = lines(service, code, env={"DISPLAY": ":99"})
    assert shown == [
        "KeyStoreLockedError: the keyring is locked, and its window was not answered in 1 seconds"
    ]


def test_without_a_default_keyring_none_is_made_behind_a_window(tmp_path):
    """The bus starts a daemon by itself, and that has no keyring yet."""
    with session_bus(tmp_path) as session:
        code = "attempt(find_keystore)\nattempt(lambda: keystore_by_number(3))\n"
        code += "store = SystemKeyStore(back_end_numbered(3))\n"
        code += "attempt(lambda: store.set(ENTRY, VALUE))\nattempt(lambda: store.get(ENTRY))"
        shown = lines(session, code)
        assert len(shown) == 4
        reason = "the Secret Service has no default keyring, and making one needs a window"
        for line in shown:
            assert line.startswith("KeyStoreAbsentError: ")
            assert reason in line
        code = "store = find_keystore()\nattempt(lambda: store.get(ENTRY))\n"
        code += "attempt(lambda: store.set(ENTRY, VALUE))"
        read, written = lines(session, code, env={"DISPLAY": ":99"})
        assert read == f"KeyStoreAbsentError: {reason}"  # reading asks for nothing to be made
        assert written.startswith("KeyStoreLockedError: there is no default keyring, and the")
    assert not list(tmp_path.rglob("*.keyring"))


def test_a_default_keyring_in_memory_is_not_good_enough(service):
    """The alias may be set to the session's keyring, which is gone after logout."""
    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    api = DBusAddress(
        "/org/freedesktop/secrets", "org.freedesktop.secrets", "org.freedesktop.Secret.Service"
    )
    memory = "/org/freedesktop/secrets/collection/session"
    with closing(open_dbus_connection(service.address)) as connection:
        set_alias = new_method_call(api, "SetAlias", "so", ("default", memory))
        connection.send_and_get_reply(set_alias)
    (shown,) = lines(service, "attempt(find_keystore)")
    assert shown.startswith("KeyStoreAbsentError: ")
    assert "in memory only" in shown


def test_a_daemon_that_dies_between_set_and_get_is_never_an_empty_one(service):
    """The bus starts another, which is locked: no key may look like one that was never there."""
    code = """
store = find_keystore()
store.set(ENTRY, VALUE)
print("set", flush=True)
sys.stdin.readline()
attempt(lambda: store.get(ENTRY))
"""
    with child(service, code) as process:
        assert process.stdout.readline() == "set\n"
        service.kill_daemon()
        go_on(process)
        shown = process.stdout.readline()
    assert shown.startswith(("KeyStoreLockedError", "KeyStoreAbsentError", "KeyStoreBrokenError"))
    assert "slow" not in shown


def test_a_bus_that_dies_is_told(tmp_path):
    code = """
store = find_keystore()
print("found", flush=True)
sys.stdin.readline()
attempt(lambda: store.get(ENTRY))
"""
    with secret_service(tmp_path) as session, child(session, code) as process:
        assert process.stdout.readline() == "found\n"
        session.kill_daemon()
        session.end()
        go_on(process)
        shown = process.stdout.readline()
    assert shown.startswith("KeyStoreAbsentError")
    assert "slow" not in shown


@contextmanager
def silent_bus(path: Path, *, lets_in: bool):
    """Listen at `path` like a session bus that hangs: before or after its greeting."""
    connections: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                while lets_in and (received := connection.recv(1024)) and b"BEGIN" not in received:
                    if b"AUTH" in received:
                        connection.sendall(b"OK 00112233445566778899aabbccddeeff\r\n")

    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"unix:path={path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("lets_in", [False, True])
def test_a_bus_that_hangs_is_given_up_in_time(lets_in, tmp_path):
    """3 seconds without a terminal, whether it hangs before or after it lets us in."""
    with silent_bus(tmp_path / "bus", lets_in=lets_in) as address:
        environment = session_environment(tmp_path) | {"DBUS_SESSION_BUS_ADDRESS": address}
        (shown,) = lines(SecretService(environment), "attempt(find_keystore)")
    assert shown == (
        "KeyStoreBrokenError: Secret Service (GNOME Keyring, KeePassXC, KWallet) did not answer "
        "within 3 seconds"
    )


@pytest.mark.parametrize(
    "name",
    [
        "keyring.backends.null.Keyring",
        "keyring.backends.fail.Keyring",
        "keyring.backends.chainer.ChainerBackend",
        "keyrings.alt.file.PlaintextKeyring",
    ],
)
def test_no_configuration_leads_the_key_elsewhere(name, service):
    """The key is in the real store, though environment and keyringrc name another."""
    configured = Path(service.env["XDG_CONFIG_HOME"], "python_keyring", "keyringrc.cfg")
    configured.parent.mkdir(parents=True)
    configured.write_text(f"[backend]\ndefault-keyring={name}\n")
    planted = {
        "PYTHON_KEYRING_BACKEND": name,
        "KEYRING_PROPERTY_PREFERRED_COLLECTION": "/org/freedesktop/secrets/collection/session",
        "KEYRING_PROPERTY_SCHEME": "KeePassXC",
    }
    code = "attempt(find_keystore)\nattempt(lambda: find_keystore().set(ENTRY, VALUE))"
    assert lines(service, code, env=planted) == [FOUND, "None"]
    assert [(attributes["service"], value) for attributes, value in service.items()] == [
        (ENTRY, VALUE.hex().encode())
    ]


def test_the_helper_leaves_no_process_behind(tmp_path):
    with secret_service(tmp_path) as session:
        daemon, address = session.daemon, session.address
        assert daemon.poll() is None
    assert daemon.poll() is not None
    path = address.removeprefix("unix:path=").split(",")[0]
    until = time.monotonic() + PATIENCE
    while True:  # the bus ends a moment after its session
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            if probe.connect_ex(path):
                break
        assert time.monotonic() < until
        time.sleep(0.02)


def test_missing_programs_skip_here_and_fail_in_ci(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="dbus-run-session and gnome-keyring-daemon"):
        require_secret_service()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Debian"):
        require_secret_service()
