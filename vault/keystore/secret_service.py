"""What state the Secret Service is in, asked before the keyring library asks for more.

The library makes a missing default keyring and unlocks a locked one by a prompt that waits for
ever, with or without a window to show it in. So the state is looked at first, over a connection
of our own. Source: the Secret Service API draft of freedesktop.org.
"""

import os
from contextlib import closing
from enum import Enum, auto

from vault.errors import KeyStoreAbsentError, KeyStoreLockedError

__all__ = [
    "Readiness",
    "ask_to_make",
    "ask_to_unlock",
    "check_bus_address",
    "default_keyring",
    "window_possible",
]


class Readiness(Enum):
    """The state of the default keyring (a "collection" in the API's words)."""

    READY = auto()
    LOCKED = auto()
    MISSING = auto()


def check_bus_address() -> None:
    """Raise KeyStoreAbsentError unless the session bus is named and is a local socket.

    Other transports reach over the network or start programs (`tcp:`, `unixexec:`, `autolaunch:`).
    """
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if not address:
        raise KeyStoreAbsentError("there is no session bus (DBUS_SESSION_BUS_ADDRESS is not set)")
    if not all(part.startswith("unix:") for part in address.split(";") if part):
        raise KeyStoreAbsentError("the session bus is not a local socket, and no other is used")


def window_possible() -> bool:
    """Tell whether a prompt of the desktop could show a window."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def default_keyring() -> Readiness:
    """Return the state of the default keyring. Opens no window, makes nothing.

    Raises KeyStoreAbsentError when nobody offers the service or nothing listens at the bus's
    address, TimeoutError when the bus does not let us in; may block for ever.
    """
    import secretstorage
    from secretstorage.collection import SESSION_COLLECTION

    try:
        connection = secretstorage.dbus_init()
    except TimeoutError:
        raise
    # RuntimeError: an address without a path. The other OSErrors: no such socket, not ours.
    except (secretstorage.SecretServiceNotAvailableException, OSError, RuntimeError):
        raise KeyStoreAbsentError("nothing answers at the session bus's address") from None
    with closing(connection):
        if not secretstorage.check_service_availability(connection):
            raise KeyStoreAbsentError("no Secret Service runs on the session bus")
        try:
            collection = secretstorage.get_collection_by_alias(connection, "default")
        except secretstorage.ItemNotFoundException:
            return Readiness.MISSING
        except secretstorage.SecretServiceNotAvailableException:
            raise KeyStoreAbsentError("the Secret Service could not be started") from None
        if collection.collection_path == SESSION_COLLECTION:
            raise KeyStoreAbsentError("the default keyring of the Secret Service is in memory only")
        return Readiness.LOCKED if collection.is_locked() else Readiness.READY


def ask_to_unlock(seconds: float) -> None:
    """Let the desktop ask the person to unlock the default keyring, for up to `seconds`.

    Raises KeyStoreLockedError when it was dismissed or not answered in time.
    """
    import secretstorage

    with closing(secretstorage.dbus_init()) as connection:
        collection = secretstorage.get_collection_by_alias(connection, "default")
        try:
            dismissed = collection.unlock(timeout=seconds)
        except TimeoutError:
            raise KeyStoreLockedError(
                f"the keyring is locked, and its window was not answered in {seconds:g} seconds",
                hint="Unlock the keyring and try again.",
            ) from None
        if dismissed or collection.is_locked():
            raise KeyStoreLockedError(
                "the keyring is locked, and its window was dismissed",
                hint="Try again and unlock the keyring, or use the passphrase or recovery phrase.",
            )


def ask_to_make() -> None:
    """Let the desktop ask the person for the password of a new default keyring; may block.

    The keyring library would do the same and forget to close its connection when it is dismissed.
    Raises KeyStoreLockedError when it was dismissed.
    """
    import secretstorage

    with closing(secretstorage.dbus_init()) as connection:
        try:
            secretstorage.create_collection(connection, "Default", "default")
        except secretstorage.PromptDismissedException:
            raise KeyStoreLockedError(
                "there is no default keyring, and the window that makes one was dismissed",
                hint="Try again and choose a password for the keyring, or use a passphrase.",
            ) from None
