"""The lock between processes: shared by many, or held alone."""

import threading
import time

import pytest

from vault.errors import StorageError
from vault.lock import VaultLock


@pytest.fixture
def locks(folder):
    made = [VaultLock(folder / "lock", patience=0.2) for _ in range(3)]
    yield made
    for lock in made:
        lock.close()


def test_many_share_and_one_alone_waits_its_turn(locks):
    with locks[0].shared(), locks[1].shared():
        with locks[2].exclusive_if_free() as alone:
            assert alone is False
        with pytest.raises(StorageError, match="another program"), locks[2].exclusive():
            pytest.fail("held it alone beside two others")
    with locks[2].exclusive(), locks[0].exclusive_if_free() as alone:
        assert alone is False
        with pytest.raises(StorageError), locks[1].shared():
            pytest.fail("shared what another held alone")
    with locks[0].exclusive_if_free() as alone:
        assert alone is True


def test_a_waiter_gets_it_when_it_is_free(locks, folder):
    patient = VaultLock(folder / "lock", patience=30)
    order: list[str] = []

    def wait():
        with patient.exclusive():
            order.append("waiter")

    with locks[0].shared():
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        order.append("holder")
    thread.join()
    patient.close()
    assert order == ["holder", "waiter"]


def test_an_error_inside_gives_it_back(locks):
    with pytest.raises(RuntimeError), locks[0].exclusive():
        raise RuntimeError
    with locks[1].exclusive():
        pass


def test_closing_twice_is_allowed(folder):
    lock = VaultLock(folder / "lock")
    lock.close()
    lock.close()
