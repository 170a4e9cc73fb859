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
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.beside import NOTHING_BESIDE
from engine.devicenames import parse_device
from engine.replicas import Replicas, draw_all, pipeline_for


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


class Lockstep(FakeBackend):
    """A fake whose networks wait for each other's at every run."""

    barrier = threading.Barrier(2, timeout=20)

    def load(self, model, shapes, *, identity=""):
        session = super().load(model, shapes, identity=identity)
        run = session.run

        def wait(inputs):
            if "timestep" in inputs:
                self.barrier.wait()
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


def outcomes(pipeline, requests, **kw):
    return list(draw_all(pipeline, requests, **kw))


def made_of(found):
    return {
        (each.place.request, each.place.picture): each.event
        for each in found
        if isinstance(each.event, Picture)
    }


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pictures_of_many_requests_are_those_of_one_device(bundle, count):
    asked = [
        request(bundle, prompt=prompt, seed=seed, count=pictures, width=width)
        for seed, (prompt, pictures, width) in enumerate(
            [("red apple", 1, 64), ("blue cat", 2, 128), ("rocket", 1, 64), ("octopus", 3, 128)]
        )
    ]
    found = outcomes(replicas(bundle, *[FakeBackend()] * count), asked)
    alone = outcomes(Pipeline(bundle, FakeBackend()), asked)
    got, wanted = made_of(found), made_of(alone)
    assert list(wanted) == [(i, k) for i, each in enumerate(asked) for k in range(each.count)]
    assert got.keys() == wanted.keys()
    for place, picture in wanted.items():
        assert np.array_equal(got[place].pixels, picture.pixels)
        assert got[place].request == picture.request
    numbers = {each.place.number for each in found}
    assert numbers == {each.place.number for each in alone} == set(range(7))


def test_requests_of_one_picture_each_are_made_at_once(bundle):
    Meeting.barrier.reset()
    found = outcomes(replicas(bundle, Meeting(), Meeting()), [request(bundle, count=1)] * 2)
    assert len(made_of(found)) == 2


def test_a_replica_stays_at_its_shape(bundle):
    """Two sizes that take turns, on two devices: each loads the networks of one size alone."""
    loaded = [[], []]

    class Noting(Lockstep):  # none runs out of its own size
        def __init__(self, notes):
            super().__init__()
            object.__setattr__(self, "notes", notes)

        def load(self, model, shapes, *, identity=""):
            if "timestep" in shapes:
                self.notes.append(shapes["sample"][-1])
            return super().load(model, shapes, identity=identity)

    asked = [request(bundle, count=1, width=width) for width in (64, 128) * 3]
    found = outcomes(replicas(bundle, *map(Noting, loaded)), asked)
    assert len(made_of(found)) == 6
    assert sorted(map(len, loaded)) == [1, 1]
    assert {sizes[0] for sizes in loaded} == {8, 16}


class Sound(FakeBackend):
    """A device that says when it decodes its third picture."""

    def __init__(self, third, **given):
        super().__init__(**given)
        object.__setattr__(self, "third", third)

    def load(self, model, shapes, *, identity=""):
        session = super().load(model, shapes, identity=identity)
        run = session.run
        decoded = []

        def count(inputs):
            if "latent_sample" in inputs:
                decoded.append("one more")
                if len(decoded) == 3:
                    self.third.set()
            return run(inputs)

        session.run = count
        return session


class Lost(FakeBackend):
    """A device that is gone in its first picture, once `when` has come."""

    def __init__(self, when, **given):
        super().__init__(lost_at_step=1, **given)
        object.__setattr__(self, "when", when)

    def load(self, model, shapes, *, identity=""):
        assert self.when.wait(20)
        return super().load(model, shapes, identity=identity)


def test_a_replica_that_is_lost_is_named_and_what_others_finished_is_kept(bundle):
    third = threading.Event()
    devices = Sound(third, device="card 0"), Lost(third, device="card 1")
    seeds = []

    def take():
        events = replicas(bundle, *devices).generate(request(bundle, count=200))
        seeds.extend(each.request.seed for each in events if isinstance(each, Picture))

    with pytest.raises(DeviceError, match=r"^card 1: the fake's device is gone$"):
        take()
    # one of the first two was lost: those behind it had waited for it, and come all the same
    assert seeds == sorted(seeds)
    assert 2 <= len(seeds) < 199
    assert len({7, 8} & set(seeds)) == 1
    assert 9 in seeds


def test_an_error_that_others_survive_drops_its_own_request_alone(bundle):
    bad = request(bundle, prompt="bad", sampler="lcm", steps=60, count=4)  # lcm takes at most 50
    asked = [request(bundle, count=2), bad, request(bundle, seed=90, count=2)]
    for pipeline in (Pipeline(bundle, FakeBackend()), replicas(bundle, *[FakeBackend()] * 2)):
        found = outcomes(pipeline, asked, goes_on=lambda error: isinstance(error, RequestError))
        assert made_of(found).keys() == {(0, 0), (0, 1), (2, 0), (2, 1)}
        errors = [each for each in found if isinstance(each.event, RequestError)]
        gone = {each.place.number for each in errors}.union(*(each.dropped for each in errors))
        assert gone == {2, 3, 4, 5}
        assert errors[0].place.request == 1


def test_two_processors_draw_what_one_does(bundle):
    asked = [request(bundle, prompt=prompt, count=1, steps=2) for prompt in ("red apple", "rocket")]
    several = replicas(bundle, OnnxRuntimeBackend(threads=1), OnnxRuntimeBackend(threads=1))
    got = made_of(outcomes(several, asked))
    wanted = made_of(outcomes(Pipeline(bundle, OnnxRuntimeBackend(threads=1)), asked))
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[key].pixels, wanted[key].pixels) for key in wanted)


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
