"""What deletes itself does so late, in order, and never because a clock went wrong."""

import pytest

import vault
from tests.vault.conftest import draft
from vault.errors import BadValueError
from vault.retention import expire

DAY = 86_400
START = 1_700_000_000.0


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def place(make):
    return make()


@pytest.fixture
def opened(place, clock):
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(place.path, unlock, clock=clock) as made:
        yield made


def nobody(record):
    return False


def add(opened, clock, prompt, size=10):
    clock.now += 60
    return opened.add([draft(prompt, b"x" * size)])[0].id


def shown(opened):
    return [record.metadata["prompt"] for record in opened.list()]


def test_nothing_but_old_trash_goes_unless_asked(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "abc"]
    opened.trash(ids[:1])
    clock.now += 6.9 * DAY
    assert opened.expire(nobody) == vault.Expiry()
    opened.trash(ids[1:2])
    clock.now += 0.2 * DAY
    assert opened.expire(nobody, dry=True).deleted == (ids[0],)
    assert len(list(opened.list(trashed=True))) == 2
    assert opened.expire(nobody).deleted == (ids[0],)
    assert [record.id for record in opened.list(trashed=True)] == [ids[1]]
    assert shown(opened) == ["c"]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({"max_count": 2}, ["d", "c"]),
        ({"max_bytes": 25}, ["d", "c"]),
        ({"max_age_days": 2.5}, ["d", "c"]),
        ({"max_count": 0}, []),
        ({"max_count": 9, "max_bytes": 10**9, "max_age_days": 99}, ["d", "c", "b", "a"]),
        ({}, ["d", "c", "b", "a"]),
    ],
)
def test_surplus_goes_into_the_trash_oldest_first(opened, clock, policy, left):
    for prompt in "abcd":
        add(opened, clock, prompt)
        clock.now += DAY
    opened.set_retention(vault.Retention(**policy))
    assert shown(opened) == ["d", "c", "b", "a"]
    dry = opened.expire(nobody, dry=True)
    assert shown(opened) == ["d", "c", "b", "a"]
    assert opened.expire(nobody) == dry
    assert shown(opened) == left
    assert len(dry.trashed) == 4 - len(left)
    assert dry.deleted == ()


def test_favourites_stay_and_do_not_count(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "abcd"]
    opened.edit(ids[0], lambda data: {**data, "favourite": True})
    opened.set_retention(vault.Retention(max_count=1))
    opened.expire(lambda record: record.metadata.get("favourite", False))
    assert shown(opened) == ["d", "a"]


def test_what_retention_trashed_is_restorable_for_its_days(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.set_retention(vault.Retention(max_count=1, trash_days=3))
    assert opened.expire(nobody).trashed == (ids[0],)
    opened.set_retention(vault.Retention(trash_days=3))
    opened.untrash(ids[:1])
    assert shown(opened) == ["b", "a"]
    opened.trash(ids[:1])
    clock.now += 2.9 * DAY
    assert opened.expire(nobody).deleted == ()
    clock.now += 0.2 * DAY
    assert opened.expire(nobody).deleted == (ids[0],)


def test_what_is_taken_out_of_the_trash_meanwhile_is_not_deleted(opened, clock, place):
    """Another process is faster between the look and the deletion: its word counts."""
    ids = [add(opened, clock, prompt) for prompt in "abcd"]
    opened.trash(ids[:3])
    clock.now += 8 * DAY
    opened.set_retention(vault.Retention(max_count=0))
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(place.path, unlock, clock=clock) as other:

        def raced(surplus):
            other.untrash(ids[:2])
            other.trash(ids[1:2])  # from now on it has its days again
            return opened.trash(surplus)

        answer = expire(opened._s, opened.retention, nobody, raced)
        assert answer == vault.Expiry(trashed=(ids[3],), deleted=(ids[2],))
        assert other.read(ids[0], "picture") == other.read(ids[1], "picture") == b"x" * 10
    assert shown(opened) == ["a"]


def test_what_a_clock_that_was_behind_trashed_has_its_days(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.expire(nobody)
    clock.now -= 400 * DAY
    assert opened.trash(ids[:1])[0].trashed > "2023-11-14"
    assert "earlier" in opened.expire(nobody).waiting
    clock.now += 400 * DAY + 60
    assert opened.expire(nobody) == vault.Expiry()
    clock.now += 7 * DAY
    assert opened.expire(nobody).deleted == (ids[0],)


def test_a_clock_set_to_2100_deletes_nothing_however_often_it_is_asked(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.trash(ids[:1])
    opened.set_retention(vault.Retention(max_age_days=30))
    opened.expire(nobody)
    right = clock.now
    clock.now = 4_102_444_800.0  # 2100-01-01
    for _ in range(5):
        clock.now += 10 * DAY
        answer = opened.expire(nobody)
        assert "later" in answer.waiting
        assert (answer.trashed, answer.deleted) == ((), ())
    clock.now = right + DAY
    assert opened.expire(nobody) == vault.Expiry()
    assert shown(opened) == ["b"]


def test_a_new_record_does_not_vouch_for_a_clock_that_leapt(opened, clock):
    """The picture that was just made carries the wrong time as well."""
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.trash(ids[:1])
    clock.now += 80 * 365 * DAY
    add(opened, clock, "made in 2100")
    assert "later" in opened.expire(nobody).waiting
    assert [record.id for record in opened.list(trashed=True)] == ids[:1]


def test_a_vault_without_any_noted_time_deletes_nothing_by_itself(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.trash(ids[:1])
    with opened._s.shared(), opened._s.ledger.writing() as change:
        change.note("clock", None)
    clock.now += 8 * DAY
    assert opened.expire(nobody).waiting
    opened.believe_clock()
    assert opened.expire(nobody).deleted == (ids[0],)


def test_the_time_is_noted_once_an_hour(opened, clock):
    add(opened, clock, "a")
    clock.now += 2 * 3600
    opened.expire(nobody)
    before = opened.status().generation
    clock.now += 600
    opened.expire(nobody)
    assert opened.status().generation == before


def test_a_person_can_say_that_the_clock_is_right(opened, clock):
    ids = [add(opened, clock, prompt) for prompt in "ab"]
    opened.expire(nobody)
    opened.trash(ids[:1])
    clock.now += 200 * DAY
    assert "200 days later" in opened.expire(nobody).waiting
    opened.believe_clock()
    assert opened.expire(nobody).deleted == (ids[0],)


def test_a_clock_that_went_back_deletes_nothing(opened, clock):
    add(opened, clock, "a")
    opened.set_retention(vault.Retention(max_age_days=0))
    opened.expire(nobody, dry=True)
    opened.expire(lambda record: True)
    clock.now -= 30 * DAY
    assert "earlier" in opened.expire(nobody).waiting


def test_the_policy_is_kept_in_the_vault_and_checked(make):
    place = make()
    policy = vault.Retention(trash_days=None, max_count=5, max_bytes=10**12)
    with place.open() as opened:
        assert opened.retention == vault.Retention()
        opened.set_retention(policy)
    with place.open() as opened:
        assert opened.retention == policy
    for bad in ({"max_count": -1}, {"trash_days": float("nan")}, {"max_bytes": float("inf")}):
        with pytest.raises(BadValueError):
            vault.Retention(**bad)
