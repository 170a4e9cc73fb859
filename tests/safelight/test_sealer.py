"""Sealing beside the work on the next picture: nothing lost, nothing said too early."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, Step
from safelight.sealer import BATCH, ROOM, Sealed, Sealer
from safelight.studio import Studio
from vault import BadValueError, Kind, MemoryKeyStore, StorageError, create

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
SOON = 20.0  # seconds that a busy machine may take


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def pictures(bundle):
    request = bundle.request(prompt="red apple", seed=5, steps=1, count=40)
    events = Pipeline(bundle, FakeBackend()).generate(request)
    return [event for event in events if isinstance(event, Picture)]


@pytest.fixture
def vault(tmp_path):
    with create(tmp_path / "vault", keystore=MemoryKeyStore(), confirm=lambda phrase: None) as it:
        yield it


class Refusing:
    """A vault whose disk is full for the first `times` transactions, or waits to be let."""

    def __init__(self, vault, times=0):
        self._vault = vault
        self.left = times
        self.let = threading.Event()
        self.let.set()

    def add(self, drafts):
        self.let.wait(SOON)
        if self.left > 0:
            self.left -= 1
            raise StorageError("the disk is full")
        return self._vault.add(drafts)


def wait_until(true):
    until = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def seeds(vault):
    return sorted(record.metadata["settings"]["seed"] for record in vault.list())


def request(bundle, **given):
    return bundle.request(**{"prompt": "red apple", "seed": 5, "steps": 3} | given)


def test_a_finished_picture_is_durable_while_the_next_one_is_being_made(bundle, vault):
    events = Studio(Pipeline(bundle, FakeBackend()), vault).run(
        [request(bundle, count=2)], lambda: False
    )
    for event in events:
        if isinstance(event, Step) and event.picture == 1:
            break
    wait_until(lambda: seeds(vault) == [5])  # nobody asks for an event meanwhile
    kinds = [type(event) for event in events]
    assert kinds[0] is Sealed  # it is told with the next event, not after the second picture
    assert kinds.count(Sealed) == 2


def test_nothing_is_said_before_it_is_durable(vault, pictures):
    slow = Refusing(vault)
    slow.let.clear()
    sealer = Sealer(slow, tuple)
    for picture in pictures[:BATCH]:
        sealer.put(picture, {})
    assert list(sealer.sealed()) == []
    slow.let.set()
    assert [each.line["seed"] for each in sealer.finish()] == [5 + n for n in range(BATCH)]


def test_pictures_keep_their_order_and_share_transactions(vault, pictures):
    before = vault.status().generation
    sealer = Sealer(vault, tuple)
    for picture in pictures:
        sealer.put(picture, {})
    told = list(sealer.finish())
    assert [each.line["seed"] for each in told] == [5 + n for n in range(len(pictures))]
    assert vault.status().generation - before <= len(pictures) // BATCH + 2


def test_a_sealer_may_start_again_and_leaves_no_thread(vault, pictures):
    sealer = Sealer(vault, tuple)
    for picture in pictures[:2]:
        sealer.put(picture, {})
        assert len(list(sealer.finish())) == 1
    assert "sealer" not in [thread.name for thread in threading.enumerate()]
    assert list(sealer.finish()) == []


def test_a_disk_that_is_full_for_a_moment_costs_no_picture(vault, pictures):
    sealer = Sealer(Refusing(vault, times=1), tuple)
    for picture in pictures[:3]:
        sealer.put(picture, {})
    assert len(list(sealer.finish())) == 3
    assert seeds(vault) == [5, 6, 7]


def test_a_full_disk_ends_the_run_with_its_own_error(bundle, vault):
    full = Refusing(vault, times=1_000)
    studio = Studio(Pipeline(bundle, FakeBackend(seconds_per_run=0.02)), full)
    told = []
    with pytest.raises(StorageError, match="full"):
        told.extend(studio.run([request(bundle, count=500, steps=1)], lambda: False))
    assert not [event for event in told if isinstance(event, Sealed)]
    assert told[-1].picture < 499  # and not only once everything was made
    assert "sealer" not in [thread.name for thread in threading.enumerate()]


class Picky:
    """A vault that takes no picture of one seed, nor what is handed over together with it."""

    def __init__(self, vault, seed):
        self._vault = vault
        self._seed = seed

    def add(self, drafts):
        if any(draft.metadata["settings"]["seed"] == self._seed for draft in drafts):
            raise BadValueError("a record's metadata is not plain JSON")
        return self._vault.add(drafts)


@pytest.mark.parametrize("bad", [0, 9, BATCH + 1])
def test_a_picture_that_cannot_be_sealed_costs_no_other(vault, pictures, bad):
    sealer = Sealer(Picky(vault, 5 + bad), tuple)
    for picture in pictures[: BATCH + 4]:
        with suppress(BadValueError):  # of an earlier one: this one is kept all the same
            sealer.put(picture, {})
    with pytest.raises(BadValueError):
        list(sealer.finish())
    good = [5 + place for place in range(BATCH + 4) if place != bad]
    assert seeds(vault) == good
    assert list(sealer.finish()) == []


def test_what_was_sealed_before_the_disk_was_full_is_told(vault, pictures):
    full = Refusing(vault)
    sealer = Sealer(full, tuple)
    for picture in pictures[:BATCH]:
        sealer.put(picture, {})
    wait_until(lambda: len(seeds(vault)) == BATCH)
    full.left = 1_000
    sealer.put(pictures[BATCH], {})
    rest = sealer.finish()
    assert [next(rest).line["seed"] for _ in range(BATCH)] == [5 + n for n in range(BATCH)]
    with pytest.raises(StorageError):
        next(rest)


def test_a_run_that_is_closed_early_seals_what_is_finished(bundle, vault):
    events = Studio(Pipeline(bundle, FakeBackend()), vault).run(
        [request(bundle, count=5)], lambda: False
    )
    for event in events:
        if isinstance(event, Step) and event.picture == 2:
            break
    events.close()
    assert seeds(vault) == [5, 6]
    assert list(vault.list(kinds=(Kind.ATTEMPT,))) == []


def test_makers_wait_for_a_disk_that_is_slower_than_they_are(vault, pictures):
    slow = Refusing(vault)
    slow.let.clear()
    sealer = Sealer(slow, tuple)
    handed = []

    def hand_over():
        for picture in pictures * 2:
            sealer.put(picture, {})
            handed.append(picture)

    maker = threading.Thread(target=hand_over)
    maker.start()
    wait_until(lambda: len(handed) >= BATCH + ROOM)  # one transaction waits, and a full room
    assert len(handed) <= BATCH + ROOM
    slow.let.set()
    maker.join(SOON)
    assert len(list(sealer.finish())) == 2 * len(pictures)
