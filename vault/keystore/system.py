"""The operating system's keyrings, through the keyring library's classes.

A class is taken from the allow-list and used as it is: the library's own choice of a back end,
PYTHON_KEYRING_BACKEND, keyringrc and the KEYRING_PROPERTY_ variables have no say.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, cast

from vault.errors import (
    KeyStoreAbsentError,
    KeyStoreBrokenError,
    KeyStoreError,
    KeyStoreLockedError,
)
from vault.keystore.allowlist import BackEnd
from vault.keystore.deadline import call_within
from vault.keystore.entry import USERNAME, check_entry, check_value, refuse_other_value
from vault.keystore.secret_service import (
    Readiness,
    ask_to_make,
    ask_to_unlock,
    check_bus_address,
    default_keyring,
    window_possible,
)

__all__ = ["SystemKeyStore", "TimeLimits"]

T = TypeVar("T")

MOST_COPIES = 8  # of one entry that `delete` clears away; races made duplicates in other programs
# Told by name, since the libraries that define them are not there on every system.
LOCKED_ERRORS = frozenset(
    {"KeychainDenied", "KeyringLocked", "LockedException", "PromptDismissedException"}
)
VANISHED_ERRORS = frozenset({"ItemNotFoundException", "PasswordDeleteError"})


class Library(Protocol):
    """The part of the keyring library's back ends that is used here."""

    def get_password(self, service: str, username: str) -> str | None: ...

    def set_password(self, service: str, username: str, password: str) -> None: ...

    def delete_password(self, service: str, username: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long a key store may take, in seconds.

    answer: without a person. prompt: for a person to answer a window; 0 = open no window.
    """

    answer: float
    prompt: float

    @classmethod
    def here(cls) -> Self:
        """Return the limits for this process: shorter where nobody sits in front of it."""
        terminal = sys.stdin is not None and sys.stdin.isatty()  # None under pythonw
        window = window_possible() if sys.platform == "linux" else terminal
        return cls(answer=10.0 if terminal else 3.0, prompt=60.0 if window else 0.0)


class SystemKeyStore:
    """One keyring of the operating system. Every call is limited in time.

    A call that was given up may still take effect later: a KEK's entry is never written twice,
    and an anchor that is older than the vault only warns.
    """

    def __init__(self, back_end: BackEnd, limits: TimeLimits | None = None) -> None:
        self._back_end = back_end
        self._limits = TimeLimits.here() if limits is None else limits
        self._deaf: type | None = None  # the library's class, once it was needed

    @property
    def number(self) -> int:
        """Return the back end's number in the table."""
        return self._back_end.number

    @property
    def name(self) -> str:
        """Return the back end's name for people."""
        return self._back_end.name

    def probe(self, *, may_be_locked: bool = False) -> None:
        """Raise KeyStoreError unless the store is there and open, or can ask to be.

        may_be_locked: say nothing about a store that is locked. Opens no window.
        """
        readiness = self._readiness()
        if readiness is Readiness.LOCKED and not (may_be_locked or self._limits.prompt):
            raise self._locked()
        if readiness is Readiness.MISSING and not self._limits.prompt:
            raise self._missing()

    def get(self, entry: str) -> bytes | None:
        """Return the value of `entry`, or None if the open store holds none."""
        check_entry(entry)
        self._prepare()
        return self._call(lambda: self._read(self._library(), entry))

    def set(self, entry: str, value: bytes) -> None:
        """Store `value`, read it back and compare."""
        check_entry(entry)
        check_value(value)
        self._prepare(may_make=True)

        def work() -> None:
            library = self._library()
            library.set_password(entry, USERNAME, value.hex())
            refuse_other_value(value, self._read(library, entry), self.name)

        self._call(work)

    def delete(self, entry: str) -> None:
        """Remove every copy of `entry`, and verify that none is left."""
        check_entry(entry)
        self._prepare()
        self._call(lambda: self._clear(self._library(), entry))

    def __repr__(self) -> str:
        return f"SystemKeyStore({self.name!r})"

    def _read(self, library: Library, entry: str) -> bytes | None:
        try:
            found = library.get_password(entry, USERNAME)
        except Exception as error:
            if not _is_vanished(error):
                raise
            found = library.get_password(entry, USERNAME)  # replaced while we looked: look again
        if found is None:
            return None
        try:
            return bytes.fromhex(found)
        except ValueError:
            raise KeyStoreBrokenError(
                f"{self.name} holds something under this vault's entry that is no key",
                hint="Open the vault with its recovery phrase or passphrase.",
            ) from None

    def _clear(self, library: Library, entry: str) -> None:
        for _ in range(MOST_COPIES):
            if library.get_password(entry, USERNAME) is None:
                return
            try:
                library.delete_password(entry, USERNAME)
            except Exception as error:
                if not _is_vanished(error):  # else another process was faster
                    raise
        if library.get_password(entry, USERNAME) is not None:
            raise KeyStoreBrokenError(f"{self.name} still holds a key that was deleted")

    def _library(self) -> Library:
        """Make the library's back end, deaf to the environment."""
        if self._deaf is None:  # once a store, since the library keeps a list of all classes
            found = self._found()
            # KEYRING_PROPERTY_x=y would set any attribute, such as another collection.
            own = {"set_properties_from_env": _ignore}
            self._deaf = type(f"Pinned{found.__name__}", (found,), own)
        library = self._deaf()
        for name, value in self._back_end.properties.items():
            setattr(library, name, value)
        return cast("Library", library)

    def _found(self) -> Any:
        """Import the library's class; importing is what may take a tenth of a second."""
        module = importlib.import_module(self._back_end.module)
        return getattr(module, self._back_end.class_name)

    def _readiness(self) -> Readiness:
        back_end = self._back_end
        if back_end.platform != sys.platform:
            raise KeyStoreAbsentError(f"this computer runs {sys.platform}")
        if back_end.session_bus:
            check_bus_address()

        def work() -> Readiness:
            try:
                found = self._found()
                readiness = default_keyring() if back_end.secret_service else Readiness.READY
                if readiness is Readiness.READY:
                    _ = found.priority  # the library's own test of what it needs
            except (ImportError, RuntimeError) as error:
                # What is missing, in the library's words; it has seen no key yet.
                raise KeyStoreAbsentError(f"{self.name} cannot be used: {error}") from None
            return readiness

        return self._call(work)

    def _prepare(self, *, may_make: bool = False) -> None:
        """Make sure that the library will not wait for a window that nobody sees."""
        readiness = self._readiness()
        prompt = self._limits.prompt
        if readiness is Readiness.LOCKED:
            if not prompt:
                raise self._locked()
            self._call(lambda: ask_to_unlock(prompt), prompts=True)
        if readiness is Readiness.MISSING:
            if not (may_make and prompt):
                raise self._missing()
            self._call(ask_to_make, prompts=True)

    def _call(self, work: Callable[[], T], *, prompts: bool = False) -> T:
        """Run `work` within its limit, and say in our words what went wrong."""
        # Keychain and KWallet open windows of their own, whatever is asked.
        own_windows = not self._back_end.secret_service
        limit = self._limits.answer
        if prompts or own_windows:
            limit += self._limits.prompt
        try:
            return call_within(limit, work)
        except KeyStoreError:
            raise
        except TimeoutError:
            raise KeyStoreBrokenError(
                f"{self.name} did not answer within {limit:g} seconds",
                hint="Log out and in again, or use the recovery phrase or passphrase.",
            ) from None
        except Exception as error:  # noqa: BLE001 - the libraries raise what they like
            # `from None`: what a library writes into its messages is not known to us.
            if _is_locked(error):
                raise self._locked() from None
            raise KeyStoreBrokenError(
                f"{self.name} failed with {type(error).__name__}",
                hint="Is it running? Try again, or use the recovery phrase or passphrase.",
            ) from None

    def _locked(self) -> KeyStoreLockedError:
        return KeyStoreLockedError(
            f"{self.name} is locked",
            hint="Unlock it in the desktop session and try again, or use the recovery phrase or "
            "passphrase.",
        )

    def _missing(self) -> KeyStoreAbsentError:
        return KeyStoreAbsentError(
            "the Secret Service has no default keyring, and making one needs a window",
            hint="Make one in the desktop's password program, or use a passphrase.",
        )


def _ignore(_library: object) -> None:
    """Stand in for the library's method that reads the environment."""


def _kinds(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _is_locked(error: Exception) -> bool:
    # jeepney passes the API's own error on with its D-Bus name.
    by_name = getattr(error, "name", None) == "org.freedesktop.Secret.Error.IsLocked"
    return by_name or bool(_kinds(error) & LOCKED_ERRORS)


def _is_vanished(error: Exception) -> bool:
    # A dismissed prompt is a kind of "not found" to secretstorage; it is not one here.
    return not _is_locked(error) and bool(_kinds(error) & VANISHED_ERRORS)
