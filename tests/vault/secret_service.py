"""Run commands beside a real Secret Service: gnome-keyring-daemon on a session bus of its own.

    require_secret_service()                       # skips, or fails where CI=true
    with secret_service(tmp_path) as session:
        session.run([sys.executable, "-m", "safelight", "init", "--keyring"])

Home, keyrings and sockets lie below `tmp_path`; nothing of the person's own session is used, and
no window can open, since DISPLAY and WAYLAND_DISPLAY are not set. Needs no terminal and may be
root. Debian packages: gnome-keyring, dbus-daemon (or dbus).
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("dbus-run-session", "gnome-keyring-daemon")
PASSWORD = b"keyring password of a test"
PATIENCE = 20.0  # seconds for a daemon to start on a busy machine


def require_secret_service() -> None:
    """Skip the test where the programs are missing; fail instead where CI=true."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{' and '.join(missing)} not installed (Debian: gnome-keyring, dbus-daemon)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class SecretService:
    """A session bus and the daemon on it.

    env: the whole environment for a command inside the session; may be copied and added to.
    """

    env: dict[str, str]
    bus: subprocess.Popen[bytes] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return self.env["DBUS_SESSION_BUS_ADDRESS"]

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        **options,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` in the session; `env` adds to its environment. Output is captured."""
        return subprocess.run(
            command,
            env=self.env | dict(env or {}),
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    def python(self, code: str, **options) -> subprocess.CompletedProcess[str]:
        """Run Python `code` in the session with this interpreter and these packages."""
        return self.run([sys.executable, "-c", code], **options)

    def start_daemon(self) -> None:
        """Start the daemon, make or open the login keyring with PASSWORD, wait until it serves."""
        self.daemon = subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self.daemon.stdin is not None
        self.daemon.stdin.write(PASSWORD)
        self.daemon.stdin.close()
        until = time.monotonic() + PATIENCE
        while not self._serves():
            assert time.monotonic() < until, "gnome-keyring-daemon did not start"
            time.sleep(0.02)

    def kill_daemon(self) -> None:
        """Kill the daemon as a crash would. Keyrings on disk stay."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(PATIENCE)

    def end(self) -> None:
        """End the daemon and the bus. May be called twice."""
        if self.daemon is not None:
            self.kill_daemon()
        if self.bus is not None and self.bus.stdin is not None:
            self.bus.stdin.close()
            self.bus.wait(PATIENCE)

    def lock(self) -> None:
        """Lock the default keyring, as the desktop does after a while."""
        with self.collection() as collection:
            collection.lock()
            assert collection.is_locked()

    def items(self) -> list[tuple[dict[str, str], bytes]]:
        """Return attributes and value of every item of the default keyring."""
        with self.collection() as collection:
            return [
                (item.get_attributes(), item.get_secret()) for item in collection.get_all_items()
            ]

    def delete_all(self) -> None:
        """Lose every item of the default keyring, as a reinstalled system does."""
        with self.collection() as collection:
            for item in collection.get_all_items():
                item.delete()

    @contextmanager
    def collection(self):
        """Open the default keyring from the test's own process."""
        import secretstorage
        from jeepney.io.blocking import open_dbus_connection

        with closing(open_dbus_connection(self.address)) as connection:
            yield secretstorage.get_collection_by_alias(connection, "default")

    def _serves(self) -> bool:
        import secretstorage
        from jeepney import DBusAddress, new_method_call
        from jeepney.io.blocking import open_dbus_connection

        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        asked = new_method_call(bus, "NameHasOwner", "s", ("org.freedesktop.secrets",))
        with closing(open_dbus_connection(self.address)) as connection:
            # Asking for the keyring itself would start another daemon, which would be locked.
            if not connection.send_and_get_reply(asked, timeout=PATIENCE).body[0]:
                return False
            with suppress(secretstorage.SecretStorageException):
                return not secretstorage.get_collection_by_alias(connection, "default").is_locked()
            return False


def session_environment(home: Path) -> dict[str, str]:
    """Make the folders of a person without a desktop below `home`; return the environment."""
    folders = {
        "HOME": home,
        "XDG_RUNTIME_DIR": home / "run",
        "XDG_DATA_HOME": home / "data",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_CACHE_HOME": home / "cache",
    }
    for folder in folders.values():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {name: str(folder) for name, folder in folders.items()}
    return env | {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"}


@contextmanager
def session_bus(home: Path) -> Iterator[SecretService]:
    """Start a session bus without a daemon on it; the bus may start one when it is asked."""
    env = session_environment(home)
    # The session lasts as long as `cat` does, which lasts until its input is closed.
    bus = subprocess.Popen(
        ["dbus-run-session", "--", "sh", "-c", 'echo "$DBUS_SESSION_BUS_ADDRESS"; exec cat'],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with bus:
        session = SecretService(env, bus)
        try:
            assert bus.stdout is not None
            address = bus.stdout.readline().decode().strip()
            assert address.startswith("unix:"), "dbus-run-session did not start"
            session.env["DBUS_SESSION_BUS_ADDRESS"] = address
            yield session
        finally:
            session.end()


@contextmanager
def secret_service(home: Path) -> Iterator[SecretService]:
    """Start a session bus and an unlocked Secret Service on it; end both afterwards."""
    with session_bus(home) as session:
        session.start_daemon()
        yield session
