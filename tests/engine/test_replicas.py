"""Several devices in one process: the same pictures in the same order, however many there are."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import (
    Bundle,
    Choice,
    DeviceError,
    FakeBackend,
    Picture,
    Pipeline,
    RequestError,
    Step,
)
from engine.beside import NOTHING_BESIDE
from engine.devicenames import parse_device
from engine.replicas import Replicas, pipeline_for


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def replicas(bundle, *backends):
    return Replicas([Pipeline(bundle, each) for each in backends])


def request(bundle, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "count": 5, "width": 64, "height": 64}
    return bundle.request(**(usual | given))


def drawn(pipeline, made, **kw):
    events = list(pipeline.generate(made, **kw))
    return [e for e in events if isinstance(e, Picture)], [e for e in events if isinstance(e, Step)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_pictures_and_their_order_do_not_depend_on_the_number(bundle, count):
    # The first one is slow, so that later pictures are ready before earlier ones.
    slow = FakeBackend(seconds_per_run=0.01)
    pipeline = replicas(bundle, slow, *[FakeBackend()] * (count - 1))
    got, steps = drawn(pipeline, request(bundle))
    wanted, alone = drawn(Pipeline(bundle, FakeBackend()), request(bundle))
    assert [each.request.seed for each in got] == [7, 8, 9, 10, 11]
    for a, b in zip(got, wanted, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert a.request == b.request
    assert sorted((s.picture, s.index) for s in steps) == [(s.picture, s.index) for s in alone]


class Meeting(FakeBackend):
    """A fake whose networks wait for each other: they run at once, or the test ends by time."""

    barrier = threading.Barrier(2, timeout=20)

    def load(self, model, shapes, *, identity=""):
        session = super().load(model, shapes, identity=identity)
        run = session.run
        met = []

        def wait(inputs):
            if "timestep" in inputs and not met:
                met.append(self.barrier.wait())
            return run(inputs)

        session.run = wait
        return session


def test_two_devices_work_at_once(bundle):
    pictures, _ = drawn(replicas(bundle, Meeting(), Meeting()), request(bundle, count=2))
    assert len(pictures) == 2


def test_each_replica_keeps_its_thread(bundle):
    seen = []

    class Noting(FakeBackend):
        def load(self, model, shapes, *, identity=""):
            seen.append(threading.current_thread().name)
            return super().load(model, shapes, identity=identity)

    pipeline = replicas(bundle, Noting())
    drawn(pipeline, request(bundle, count=2))
    drawn(pipeline, request(bundle, count=1, width=128))
    assert {each.rpartition("_")[0] for each in seen} == {"replica-0"}
    assert len(set(seen)) == 1


def test_a_preview_is_of_the_step_it_came_with(bundle):
    looks = {}
    for event in replicas(bundle, FakeBackend(), FakeBackend()).generate(request(bundle, count=2)):
        if isinstance(event, Step):
            looks[event.picture, event.index] = event.preview()
    alone = {}
    for event in Pipeline(bundle, FakeBackend()).generate(request(bundle, count=2)):
        if isinstance(event, Step):
            alone[event.picture, event.index] = event.preview()
    assert looks.keys() == alone.keys()
    assert all(np.array_equal(looks[key], alone[key]) for key in alone)


def test_cancelling_ends_all(bundle):
    seen = []
    pipeline = replicas(bundle, FakeBackend(), FakeBackend())
    seen.extend(pipeline.generate(request(bundle), lambda: len(seen) >= 4))
    assert 4 <= len(seen) <= 6
    pictures, _ = drawn(pipeline, request(bundle))  # and it can be asked again
    assert len(pictures) == 5


def test_a_reader_that_stops_in_the_middle_leaves_nobody_waiting(bundle):
    pipeline = replicas(bundle, FakeBackend(), FakeBackend())
    events = pipeline.generate(request(bundle))
    next(events)
    events.close()
    pictures, _ = drawn(pipeline, request(bundle))
    assert len(pictures) == 5


def test_the_error_of_any_device_ends_the_events(bundle):
    broken = FakeBackend(fails_on="latent_sample")
    with pytest.raises(DeviceError, match="was told not to load"):
        drawn(replicas(bundle, FakeBackend(), broken), request(bundle))
    with pytest.raises(RequestError, match="unknown preview"):
        replicas(bundle, FakeBackend()).generate(request(bundle), previews="x")


def test_a_choice_of_several_becomes_replicas(bundle):
    choice = Choice(backend=FakeBackend(), reason="asked for", others=(FakeBackend(device="b"),))
    several = pipeline_for(bundle, choice, check_safety=True, beside=NOTHING_BESIDE)
    assert isinstance(several, Replicas)
    assert several.model == "pocket"
    assert several.load(64, 64) >= 0
    pictures, _ = drawn(several, request(bundle))
    assert {each.reason for each in pictures} == {"asked for"}
    one = pipeline_for(bundle, replace(choice, others=()), check_safety=True, beside=NOTHING_BESIDE)
    assert isinstance(one, Pipeline)


def test_several_cards_have_a_name():
    assert parse_device("cuda:0,2").which == "0,2"
    for wrong in ("cuda:0,", "cuda:,1", "cuda:0;1", "tensorrt:0,1"):
        with pytest.raises(RequestError, match="unknown device"):
            parse_device(wrong)
