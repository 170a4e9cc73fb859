"""Incognito jobs: pictures in memory, and not a byte of them on disk unless somebody keeps one."""

import threading
from dataclasses import replace

import pytest

from engine import FakeBackend
from engine.backends.onnxruntime import OnnxRuntimeBackend
from safelight.exits import UsageError
from safelight.workshop import State
from safelight.workshop.unsealed import Unsealed
from tests.engine.test_replicas import Lost, Sound
from tests.safelight.workshop.home import LONG, Ear, Refusing, on, order
from vault import Draft, Kind, StorageError


def test_an_incognito_job_goes_on_where_a_device_was_lost(place):
    third = threading.Event()
    workshop = place.workshop(on(Sound(third), Lost(third)))
    job = workshop.submit(replace(order(count=12), incognito=True))
    failed = workshop.wait(job.id, LONG)
    assert failed.state is State.FAILED
    assert len({0, 1} & set(failed.places)) == 1  # one of the first two is missing
    assert len(failed.made) == len(failed.places) == failed.done
    workshop.pipelines.forget()
    workshop.pipelines._choice = on(FakeBackend(), FakeBackend())
    workshop.resume(job.id)
    done = workshop.wait(job.id, LONG)
    assert done.state is State.DONE
    assert sorted(done.places) == list(range(12))
    found = [workshop.unsealed.find(each).metadata["settings"]["seed"] for each in done.made]
    assert sorted(found) == list(range(5, 17))


def everything(vault):
    """Give what the vault's folder holds, byte for byte, and how often it changed."""
    files = (each for each in vault.path.rglob("*") if each.is_file())
    return {each: each.read_bytes() for each in files}


def test_incognito_jobs_make_pictures_and_write_nothing(place, double):
    workshop = place.workshop()
    parent = workshop.wait(workshop.submit(order()).id, LONG).made[0]
    before = everything(place.vault)
    asked = replace(order(count=2), incognito=True)
    with Ear(workshop) as ear:
        job = workshop.wait(workshop.submit(asked).id, LONG)
        assert ear.wait_for("sealed")["unsealed"] is True
    assert job.state is State.DONE
    assert len(set(job.made)) == 2
    for name in job.made:
        draft = workshop.unsealed.find(name)
        assert [blob.name for blob in draft.blobs][:2] == ["picture", "thumbnail"]
        assert draft.metadata["prompt"] == "red apple"
    # waiting, cancelled, failed, tried again, locked: nothing of it either
    workshop.pause()
    waiting, other = workshop.submit(asked), workshop.submit(asked)
    workshop.cancel(waiting.id)
    failing = place.workshop(FakeBackend(fails_on="latent_sample"))
    failed = failing.wait(failing.submit(asked).id, LONG)
    assert failed.state is State.FAILED
    failing.resume(failed.id)
    assert failing.wait(failed.id, LONG).state is State.FAILED
    large = place.workshop(OnnxRuntimeBackend())
    job = large.wait(large.submit_upscale(parent, double, incognito=True).id, LONG)
    assert large.unsealed.find(job.made[0]).metadata["parent"] == parent
    workshop.close()
    assert workshop.unsealed.find(job.made[0]) is None
    assert everything(place.vault) == before
    assert [each.id for each in place.workshop().jobs] == []
    assert other.incognito


def test_an_incognito_picture_is_sealed_when_somebody_keeps_it(place):
    workshop = place.workshop()
    asked = replace(order(count=2), incognito=True)
    job = workshop.wait(workshop.submit(asked).id, LONG)
    kept = workshop.keep(job.made[0])
    assert place.vault.get(kept).metadata["prompt"] == "red apple"
    assert bytes(place.vault.read(kept, "picture")).startswith(b"\x89PNG")
    workshop.forget(job.made[1])
    assert workshop.find(job.id).made == (kept,)
    for call in (workshop.keep, workshop.forget):
        with pytest.raises(UsageError, match="no longer in memory"):
            call(job.made[0])


def test_a_disk_that_refuses_does_not_lose_an_incognito_picture(place):
    vault = place.vault
    place.vault = Refusing(vault, StorageError("the disk is full"))
    workshop = place.workshop()
    place.vault = vault
    job = workshop.wait(workshop.submit(replace(order(), incognito=True)).id, LONG)
    assert job.state is State.DONE
    with pytest.raises(StorageError, match="full"):
        workshop.keep(job.made[0])
    assert workshop.unsealed.find(job.made[0]).metadata["prompt"] == "red apple"


def test_incognito_pictures_are_few_and_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr("safelight.workshop.unsealed.MOST", 3)
    held = Unsealed()
    draft = Draft(kind=Kind.PICTURE, metadata={})
    names = [held.add([draft])[0].id for _ in range(4)]
    assert [held.find(name) is None for name in names] == [True, False, False, False]
    (attempt,) = held.add([Draft(kind=Kind.ATTEMPT, metadata={})])
    assert held.find(attempt.id) is None
    assert held.find(names[1]) is not None
    taken = held.take(names[1])
    held.close()
    held.put_back(names[1], taken)
    late = held.add([draft])[0].id  # of a step that was slower than the lock
    assert [held.find(name) for name in (*names, late)] == [None] * 5
