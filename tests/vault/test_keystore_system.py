"""System key stores with back ends that misbehave as real ones have been seen to."""

import sys
import threading
import time

import pytest

from vault.errors import (
    BadValueError,
    KeyStoreAbsentError,
    KeyStoreBrokenError,
    KeyStoreLockedError,
)
from vault.keystore.allowlist import BackEnd, back_end_numbered
from vault.keystore.deadline import call_within
from vault.keystore.entry import anchor_entry
from vault.keystore.system import SystemKeyStore, TimeLimits

ENTRY = anchor_entry(bytes(16))
VALUE = b"thirty-two bytes of a secret key"
FAST = TimeLimits(answer=0.3, prompt=0.0)


class Dictionary:
    """A back end as the keyring library has them; its entries last as long as one test."""

    priority = 5
    entries: dict[str, list[str]]  # made anew by the fixture

    def __init__(self):
        self.set_properties_from_env()

    def set_properties_from_env(self):
        raise AssertionError("the environment was read")

    def get_password(self, service, username):
        assert username == "safelight"
        copies = self.entries.get(service)
        return copies[0] if copies else None

    def set_password(self, service, username, password):
        self.entries[service] = [password]

    def delete_password(self, service, username):
        self.entries[service].pop(0)


@pytest.fixture(autouse=True)
def _empty():
    Dictionary.entries = {}


class Hanging(Dictionary):
    released = threading.Event()

    def get_password(self, service, username):
        self.released.wait(30)


class Unusable(Dictionary):
    class _Priority:
        def __get__(self, instance, owner):
            raise RuntimeError("python-dbus not installed")

    priority = _Priority()


class Keeping(Dictionary):
    def delete_password(self, service, username):
        pass


class Leaky(Dictionary):
    """Writes the key into its error, as a careless library might."""

    def set_password(self, service, username, password):
        raise OSError(f"could not send {password}")


class ItemNotFoundException(Exception):  # noqa: N818 - secretstorage's name
    pass


class PromptDismissedException(ItemNotFoundException):
    """Dismissed is a kind of not found in secretstorage, too."""


class KeyringLocked(Exception):  # noqa: N818 - the keyring library's name
    pass


class ApiLockedError(Exception):
    name = "org.freedesktop.Secret.Error.IsLocked"


class Locked(Dictionary):
    error: type[Exception] = KeyringLocked

    def get_password(self, service, username, password=None):
        raise self.error

    set_password = delete_password = get_password


class Dismissed(Locked):
    error = PromptDismissedException


class Overtaken(Dictionary):
    """Another process deletes the entry between the look and the deletion."""

    def delete_password(self, service, username):
        super().delete_password(service, username)
        raise ItemNotFoundException


class DismissedDelete(Dictionary):
    """Asks before it deletes; the person says no."""

    asked: list[str]

    def delete_password(self, service, username):
        self.asked.append(service)
        raise PromptDismissedException


class LockedByApi(Locked):
    error = ApiLockedError


class Racing(Dictionary):
    """Another process replaces the item, and it vanishes once while it is looked at."""

    vanish: list[None]

    def get_password(self, service, username):
        if self.vanish:
            self.vanish.pop()
            raise ItemNotFoundException
        return super().get_password(service, username)


def store_of(kind, limits=FAST, **options):
    back_end = BackEnd(
        number=200,
        name="a test's keyring",
        platform=sys.platform,
        module=kind.__module__,
        class_name=kind.__name__,
        **options,
    )
    return SystemKeyStore(back_end, limits)


def store_of_library(module, class_name="Keyring"):
    back_end = BackEnd(
        number=201, name=module, platform=sys.platform, module=module, class_name=class_name
    )
    return SystemKeyStore(back_end, FAST)


def test_values_are_kept_as_hexadecimal_text_and_come_back():
    store = store_of(Dictionary)
    assert store.get(ENTRY) is None
    store.set(ENTRY, VALUE)
    assert Dictionary.entries == {ENTRY: [VALUE.hex()]}
    assert store.get(ENTRY) == VALUE
    store.delete(ENTRY)
    store.delete(ENTRY)
    assert store.get(ENTRY) is None


def test_a_name_that_is_not_ours_never_reaches_the_back_end():
    Dictionary.entries = {"login": ["other"]}
    store = store_of(Dictionary)
    for use in (store.get, store.delete, lambda entry: store.set(entry, VALUE)):
        with pytest.raises(BadValueError):
            use("login")
    assert Dictionary.entries == {"login": ["other"]}


def test_properties_are_set_by_us_and_the_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("KEYRING_PROPERTY_ENTRIES", "spoiled")
    back_end = BackEnd(
        number=200,
        name="a test's keyring",
        platform=sys.platform,
        module=__name__,
        class_name="Dictionary",
        properties={"appid": "safelight"},
    )
    library = SystemKeyStore(back_end, FAST)._library()
    assert library.appid == "safelight"
    assert library.entries == {}


@pytest.mark.parametrize("number", [3, 4])
def test_the_real_classes_are_deaf_too(number, monkeypatch):
    """Through every class that can be made on this system, whatever runs on it."""
    for name in ("SCHEME", "PREFERRED_COLLECTION", "COLLECTION", "APPID"):
        monkeypatch.setenv(f"KEYRING_PROPERTY_{name}", "spoiled")
    library = SystemKeyStore(back_end_numbered(number), FAST)._library()
    assert library.scheme == "default"
    assert library.appid == "safelight"
    assert getattr(library, "preferred_collection", None) is None


def test_the_null_back_end_is_found_out_if_it_were_ever_used():
    """Accepts a key and drops it: keyring.backends.null, the library's own."""
    with pytest.raises(KeyStoreBrokenError, match="did not keep"):
        store_of_library("keyring.backends.null").set(ENTRY, VALUE)


def test_the_fail_back_end_is_found_out_if_it_were_ever_used():
    with pytest.raises(KeyStoreBrokenError, match="NoKeyringError"):
        store_of_library("keyring.backends.fail").set(ENTRY, VALUE)


def test_a_hanging_back_end_is_given_up_in_time():
    started = time.monotonic()
    with pytest.raises(KeyStoreBrokenError, match=r"did not answer within 0\.3 seconds"):
        store_of(Hanging).get(ENTRY)
    assert time.monotonic() - started < 1.5
    Hanging.released.set()


@pytest.mark.parametrize("kind", [Locked, Dismissed, LockedByApi])
def test_locked_is_told_from_broken(kind):
    store = store_of(kind)
    for use in (store.get, store.delete, lambda entry: store.set(entry, VALUE)):
        with pytest.raises(KeyStoreLockedError, match="locked"):
            use(ENTRY)


def test_an_entry_that_another_process_deleted_first_is_gone_all_the_same():
    Dictionary.entries = {ENTRY: ["aa"]}
    store_of(Overtaken).delete(ENTRY)
    assert Dictionary.entries == {ENTRY: []}


def test_a_dismissed_window_is_not_opened_again():
    DismissedDelete.asked = []
    Dictionary.entries = {ENTRY: ["aa"]}
    with pytest.raises(KeyStoreLockedError):
        store_of(DismissedDelete).delete(ENTRY)
    assert DismissedDelete.asked == [ENTRY]


def test_unusable_is_absent_with_the_librarys_reason():
    store = store_of(Unusable)
    for use in (store.probe, lambda: store.get(ENTRY), lambda: store.set(ENTRY, VALUE)):
        with pytest.raises(KeyStoreAbsentError, match="python-dbus not installed"):
            use()


def test_a_library_that_is_not_installed_is_absent():
    with pytest.raises(KeyStoreAbsentError, match="no_such_library"):
        store_of_library("no_such_library").get(ENTRY)


def test_errors_of_libraries_show_no_key():
    with pytest.raises(KeyStoreBrokenError, match="OSError") as caught:
        store_of(Leaky).set(ENTRY, VALUE)
    assert VALUE.hex() not in str(caught.value) + caught.value.hint
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("found", ["", "no key at all", VALUE.hex()[:-1], VALUE.hex() + "é"])
def test_what_is_no_key_is_broken_or_another_value_and_never_returned(found):
    Dictionary.entries = {ENTRY: [found]}
    store = store_of(Dictionary)
    if found == "":
        assert store.get(ENTRY) == b""
        return
    with pytest.raises(KeyStoreBrokenError) as caught:
        store.get(ENTRY)
    assert found not in str(caught.value)


def test_every_copy_of_an_entry_is_deleted():
    Dictionary.entries = {ENTRY: ["aa", "bb", "cc"]}
    store_of(Dictionary).delete(ENTRY)
    assert Dictionary.entries == {ENTRY: []}


def test_a_key_that_stays_after_delete_is_told():
    Dictionary.entries = {ENTRY: ["aa"]}
    with pytest.raises(KeyStoreBrokenError, match="still holds"):
        store_of(Keeping).delete(ENTRY)


def test_an_item_that_vanishes_under_our_eyes_is_looked_for_again():
    Racing.vanish = [None]
    Dictionary.entries = {ENTRY: [VALUE.hex()]}
    assert store_of(Racing).get(ENTRY) == VALUE
    Racing.vanish = [None, None]
    with pytest.raises(KeyStoreBrokenError, match="ItemNotFoundException"):
        store_of(Racing).get(ENTRY)


def test_call_within_hands_back_results_and_errors():
    assert call_within(5, lambda: 7) == 7
    assert call_within(5, lambda: None) is None
    with pytest.raises(KeyError, match="lost"):
        call_within(5, lambda: {}["lost"])
    with pytest.raises(SystemExit):
        call_within(5, sys.exit)


def test_limits_without_a_terminal_are_short_and_open_no_window(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as under pythonw
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert TimeLimits.here() == TimeLimits(answer=3.0, prompt=0.0)


def test_repr_names_the_store():
    assert repr(store_of(Dictionary)) == 'SystemKeyStore("a test\'s keyring")'
