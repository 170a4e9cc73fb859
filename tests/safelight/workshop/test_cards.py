"""Several devices in one queue: the same pictures, and none lost with a device."""

import gc
import itertools
import threading
import weakref
from dataclasses import replace

import pytest

from engine import FakeBackend
from safelight.workshop import Pipelines, State, Workshop
from tests.engine.test_replicas import Lockstep, Lost, Sound
from tests.safelight.workshop.home import LONG, Ear, Home, on, order
from vault import Kind

MANY = 200  # pictures that no device here has made before it is asked to stop


def pixels_of(vault):
    return {
        record.metadata["settings"]["seed"]: bytes(vault.read(record.id, "picture"))
        for record in vault.list()
    }


def test_several_devices_make_a_job_as_one_does(place, tmp_path, shelf):
    lists = {"colour": ["red", "blue", "green"]}  # each picture is a request of its own
    wild = replace(order(prompt="__colour__ apple", count=7), lists=lists)
    workshop = place.workshop(on(FakeBackend(), FakeBackend(), FakeBackend()))
    with Ear(workshop) as ear:
        several = workshop.wait(workshop.submit(wild).id, LONG)
        told = [news.data for news in ear.heard if news.name == "step"]
    assert (several.state, several.done, several.behind) == (State.DONE, 7, 7)
    seeds = [place.vault.get(each).metadata["settings"]["seed"] for each in several.made]
    assert seeds == list(range(5, 12))
    drawn = [(each["behind"] + each["in_hand"] * each["step"] / each["steps"]) for each in told]
    assert all(0 < each <= 7 for each in drawn)
    assert all(each["in_hand"] <= 3 and each["behind"] <= 6 for each in told)
    alone = Home(tmp_path / "alone", shelf)
    one = alone.workshop()
    assert one.wait(one.submit(wild).id, LONG).state is State.DONE
    assert pixels_of(place.vault) == pixels_of(alone.vault)
    one.close()
    alone.vault.close()


def test_two_devices_work_at_once_and_the_first_picture_is_looked_at(place):
    ticks = itertools.count()  # a second between any two looks at it: each step may be shown
    pipelines = Pipelines(place.shelf, lambda: on(Lockstep(), Lockstep()))
    workshop = Workshop(place.vault, pipelines, clock=lambda: float(next(ticks)))
    place.open.append(workshop)
    with Ear(workshop) as ear:
        done = workshop.wait(workshop.submit(order(count=2)).id, LONG)
        told = [news.data for news in ear.heard if news.name == "step"]
    assert done.state is State.DONE
    assert max(each["in_hand"] for each in told) == 2
    assert workshop.pipelines.at_once == 2
    # three steps of the first one, and at most the last of the second, with nothing before it
    assert 3 <= len({each["preview"] for each in told} - {0}) <= 4


def test_a_device_that_is_lost_fails_the_job_and_the_rest_is_made_later(place):
    third = threading.Event()
    workshop = place.workshop(on(Sound(third, device="card 0"), Lost(third, device="card 1")))
    job = workshop.wait(workshop.submit(order(count=40)).id, LONG)
    assert job.state is State.FAILED
    assert job.reason.startswith("card 1: ")
    made = place.count(Kind.PICTURE)
    assert 2 <= made == job.done < 39
    workshop.close()
    place.again()
    mended = place.workshop(on(FakeBackend(), FakeBackend()))
    mended.resume(job.id)
    assert mended.wait(job.id, LONG).state is State.DONE
    seeds = [each.metadata["settings"]["seed"] for each in place.vault.list()]
    assert sorted(seeds) == list(range(5, 45))  # nothing twice, nothing missing


class Closing:
    """Waits until a workshop is about to be closed."""

    workshop = None

    def wait(self, seconds):
        with self.workshop._changed:
            return self.workshop._changed.wait_for(lambda: self.workshop.is_closing, seconds)


def test_a_lock_keeps_what_several_devices_finished_and_offers_the_rest(place):
    third, closing = threading.Event(), Closing()
    workshop = closing.workshop = place.workshop(on(Sound(third), Lost(closing)))
    job = workshop.submit(order(count=MANY))
    assert third.wait(LONG)
    workshop.close(LONG)
    made = place.count(Kind.PICTURE)
    assert 2 <= made < MANY
    place.again()
    (offered,) = place.workshop().jobs
    assert (offered.id, offered.state) == (job.id, State.OFFERED)


@pytest.mark.parametrize("devices", [1, 2])
def test_networks_are_given_back_as_soon_as_they_are_forgotten(place, devices):
    workshop = place.workshop(on(*[FakeBackend()] * devices))
    job = workshop.submit(order(count=3))
    assert workshop.wait(job.id, LONG).state is State.DONE
    loaded = weakref.ref(workshop.pipelines.load("pocket", job.requests))
    gc.disable()  # not some time later, when the next model needs the room
    try:
        workshop.pipelines.forget()
        assert loaded() is None
    finally:
        gc.enable()
