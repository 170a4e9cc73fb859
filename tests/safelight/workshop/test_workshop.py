"""The queue at work, at the shipped seams: FakeBackend, MemoryKeyStore, a real vault on disk."""

import gc
import itertools
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from engine import Choice, FakeBackend, RequestError
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.errors import BundleError
from safelight.canvas import Canvas
from safelight.exits import UsageError
from safelight.shelf import Shelf
from safelight.upscalers import take_in_upscaler
from safelight.workshop import Order, Pipelines, State, Workshop
from safelight.workshop.job import Place
from safelight.workshop.unsealed import Unsealed
from tests.engine.test_replicas import Lockstep, Lost, Sound
from tests.engine.upscaler_graph import write_upscaler
from vault import Draft, KeyStoreUnlock, Kind, MemoryKeyStore, StorageError, create, open_vault

LONG = 60.0  # seconds that nothing here takes


class Home:
    """A vault that can be closed and opened again, and workshops in it."""

    def __init__(self, path, shelf):
        self.path = path
        self.store = MemoryKeyStore()
        self.vault = create(path / "vault", keystore=self.store, confirm=lambda phrase: None)
        self.shelf = shelf
        self.open = []

    def workshop(self, backend=None):
        pipelines = Pipelines(self.shelf, lambda: backend or FakeBackend())
        self.open.append(Workshop(self.vault, pipelines))
        return self.open[-1]

    def again(self):
        self.vault.close()
        self.vault = open_vault(self.path / "vault", KeyStoreUnlock(self.store))

    def count(self, kind):
        return len(list(self.vault.list(kinds=(kind,))))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return Shelf(home / "models", home / "cache")


@pytest.fixture
def place(tmp_path, shelf):
    found = Home(tmp_path, shelf)
    yield found
    for workshop in found.open:
        workshop.close()
    found.vault.close()


def order(**fields):
    return Order(model="pocket", fields={"prompt": "red apple", "seed": 5, "steps": 3} | fields)


class Ear:
    """Listens to everything at once, and waits for what it wants to hear."""

    def __init__(self, workshop):
        self._changed = threading.Condition()
        self._listening = workshop.feed.listen(self._hear)
        self._listener = None
        self.heard = []

    def __enter__(self):
        self._listener = self._listening.__enter__()
        return self

    def __exit__(self, *error):
        return self._listening.__exit__(*error)

    def _hear(self):
        with self._changed:
            self.heard += self._listener.take()
            self._changed.notify_all()

    def wait_for(self, name, number=1):
        def there():
            return [news for news in self.heard if news.name == name][number - 1 :]

        with self._changed:
            assert self._changed.wait_for(there, LONG), f"no {name}"
            return there()[0].data


def test_what_is_submitted_is_made_in_order_and_its_job_is_gone(place):
    workshop = place.workshop()
    first = workshop.submit(order(count=2))
    second = workshop.submit(order(prompt="blue cat", seed=9))
    assert workshop.wait(second.id, LONG).state is State.DONE
    assert [len(workshop.find(job.id).made) for job in (first, second)] == [2, 1]
    records = list(place.vault.list())
    assert [r.metadata["prompt"] for r in records] == ["blue cat", "red apple", "red apple"]
    assert [r.metadata["job"]["index"] for r in records] == [0, 1, 0]
    assert place.count(Kind.JOB) == 0
    assert workshop.jobs == ()


def test_who_listens_hears_steps_with_previews_and_each_sealed_picture(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.05))
    with Ear(workshop) as ear:
        job = workshop.submit(order(count=2, steps=6))
        workshop.wait(job.id, LONG)
        sealed = ear.wait_for("sealed", 2)
        assert sealed["id"] == workshop.find(job.id).made[1]
        assert sealed["seed"] == 6
        steps = [news.data for news in ear.heard if news.name == "step"]
        assert steps[-1]["steps"] == 6
        assert steps[0]["left"] > 0
        reached = [(each["behind"], each["step"]) for each in steps]
        assert len(reached) == 2 * 6
    number, data = workshop.preview
    assert number > 0
    assert data[8:12] == b"WEBP"


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["quick", "slow"])
def test_pictures_are_counted_once_whether_they_are_sealed_soon_or_late(place, pause):
    workshop = place.workshop(FakeBackend(seconds_per_run=pause))
    with Ear(workshop) as ear:
        job = workshop.submit(order(count=5, steps=2, sampler="euler"))
        workshop.wait(job.id, LONG)
        ear.wait_for("sealed", 3)
    reached = [(n.data["behind"], n.data["step"]) for n in ear.heard if n.name == "step"]
    assert reached == [(behind, step) for behind in range(5) for step in (1, 2)]


MANY = 200  # pictures that no device here has made before it is asked to stop


def on(*backends):
    first, *others = backends
    return Choice(backend=first, reason="several", others=tuple(others))


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


def test_without_a_listener_no_preview_is_made(place):
    workshop = place.workshop()
    workshop.wait(workshop.submit(order()).id, LONG)
    assert workshop.preview == (0, b"")


def test_cancelling_the_running_job_keeps_its_pictures_and_the_next_one_goes_on(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.1))
    with Ear(workshop) as ear:
        job = workshop.submit(order(count=500))
        after = workshop.submit(order(prompt="blue cat"))
        ear.wait_for("sealed", 2)
        workshop.cancel(job.id)
        assert workshop.wait(job.id, LONG).state is State.CANCELLED
    kept = len(workshop.find(job.id).made)
    assert kept >= 2
    assert workshop.wait(after.id, LONG).state is State.DONE
    assert place.count(Kind.PICTURE) == kept + 1
    (attempt,) = place.vault.list(kinds=(Kind.ATTEMPT,))
    assert attempt.metadata["outcome"] == "cancelled"


def test_a_waiting_job_is_cancelled_without_a_trace(place):
    workshop = place.workshop()
    workshop.pause()
    jobs = [workshop.submit(order()) for _ in range(3)]
    workshop.cancel(jobs[0].id)
    assert place.count(Kind.JOB) == 2
    workshop.cancel_all()
    workshop.unpause()
    assert workshop.jobs == ()
    assert place.count(Kind.JOB) == place.count(Kind.PICTURE) == 0


def test_paused_means_between_steps_and_what_is_begun_goes_on(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.02))
    with Ear(workshop) as ear:
        job = workshop.submit(order(steps=40))
        ear.wait_for("step", 2)
        workshop.pause("a person asked")
        time.sleep(0.2)
        stood = workshop.find(job.id).step
        time.sleep(0.2)
        assert (workshop.find(job.id).step, workshop.paused) == (stood, "a person asked")
        assert stood < 40
        workshop.unpause()
        assert workshop.wait(job.id, LONG).state is State.DONE


def test_a_lock_keeps_finished_pictures_and_offers_the_rest_again(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.1))
    with Ear(workshop) as ear:
        workshop.submit(order(count=8, sampler="euler_a"))
        workshop.submit(order(prompt="blue cat"))
        ear.wait_for("sealed", 2)
        workshop.close()
        assert workshop.jobs == ()
        ear.wait_for("closed")
    before = place.count(Kind.PICTURE)
    assert 2 <= before < 8
    assert place.count(Kind.ATTEMPT) == 0
    place.again()
    workshop = place.workshop()
    assert [job.state for job in workshop.jobs] == [State.OFFERED] * 2
    assert [job.prompt for job in workshop.jobs] == ["red apple", "blue cat"]
    first, second = workshop.jobs
    workshop.resume_all()
    assert workshop.wait(second.id, LONG).state is State.DONE
    made = [r for r in place.vault.list() if r.metadata["prompt"] == "red apple"]
    assert sorted(r.metadata["settings"]["seed"] for r in made) == list(range(5, 13))
    assert len(workshop.find(first.id).made) == 8


def test_a_step_that_is_slower_than_the_lock_ends_quietly_and_its_job_is_offered(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.5))
    with Ear(workshop) as ear:
        workshop.submit(order(count=2))
        ear.wait_for("step")
        workshop.close(patience=0.0)
        place.again()
    workshop._thread.join(LONG)
    assert not workshop._thread.is_alive()
    assert workshop.jobs == ()
    (job,) = place.workshop().jobs
    assert job.state is State.OFFERED
    with pytest.raises(UsageError, match="being locked"):
        workshop.submit(order())


class Refusing:
    """A vault that seals no picture."""

    def __init__(self, vault, error):
        self._vault, self._error = vault, error

    def __getattr__(self, name):
        return getattr(self._vault, name)

    def add(self, drafts):
        if any(draft.kind is Kind.PICTURE for draft in drafts):
            raise self._error
        return self._vault.add(drafts)


@pytest.mark.parametrize(
    ("error", "says", "paused"),
    [
        (StorageError("the disk is full"), "the disk is full", True),
        (OSError(28, "red apple"), "the file system refused", True),
        (TypeError("red apple"), "unexpected TypeError", False),
    ],
    ids=["vault", "system", "bug"],
)
def test_whatever_goes_wrong_ends_one_job_and_says_nothing_of_its_prompt(
    place, error, says, paused
):
    vault = place.vault
    place.vault = Refusing(vault, error)
    workshop = place.workshop()
    place.vault = vault
    with Ear(workshop) as ear:
        job = workshop.submit(order())
        ear.wait_for("failed")
    assert workshop.find(job.id).reason == says
    assert bool(workshop.paused) is paused
    (record,) = vault.list(kinds=(Kind.JOB,))
    assert record.metadata["reason"] == says


def test_a_picture_in_the_trash_is_not_made_again(place):
    workshop = place.workshop(FakeBackend(seconds_per_run=0.1))
    with Ear(workshop) as ear:
        workshop.submit(order(count=12))
        place.vault.trash([ear.wait_for("sealed")["id"]])
        workshop.close()
    place.again()
    workshop = place.workshop()
    (job,) = workshop.jobs
    workshop.resume(job.id)
    workshop.wait(job.id, LONG)
    seeds = [r.metadata["settings"]["seed"] for r in place.vault.list()]
    assert sorted(seeds) == list(range(6, 17))


def test_a_request_that_cannot_be_drawn_is_refused_and_nothing_is_sealed(place):
    workshop = place.workshop()
    for fields, error in (
        ({"width": 13}, RequestError),
        ({"sampler": "lcm", "steps": 60}, RequestError),
        ({"upscaler": "gone"}, BundleError),
        ({"colour": "red"}, UsageError),
    ):
        with pytest.raises(error):
            workshop.submit(order(**fields))
    with pytest.raises(BundleError, match="no model 'poket'"):
        workshop.submit(replace(order(), model="poket"))
    assert place.count(Kind.JOB) == 0
    assert workshop.jobs == ()


@pytest.mark.parametrize(
    ("backend", "paused"),
    [
        (FakeBackend(nan_at_step=1, nan_in_exact=True, precision="bf16"), False),
        (FakeBackend(fails_on="latent_sample"), True),
    ],
    ids=["overflow", "device"],
)
def test_a_failed_job_says_why_and_stays_for_another_try(place, backend, paused):
    workshop = place.workshop(backend)
    with Ear(workshop) as ear:
        job = workshop.submit(order())
        reason = ear.wait_for("failed")["reason"]
    assert workshop.find(job.id).state is State.FAILED
    assert "red apple" not in reason
    assert bool(workshop.paused) is paused
    workshop.close()
    place.again()
    workshop = place.workshop()
    (job,) = workshop.jobs
    assert (job.state, job.reason) == (State.FAILED, reason)
    workshop.resume(job.id)
    assert workshop.wait(job.id, LONG).state is State.DONE
    assert place.count(Kind.JOB) == 0


def test_another_try_after_a_lost_device_goes_on_with_the_queue(place):
    workshop = place.workshop(FakeBackend(fails_on="latent_sample"))
    job = workshop.submit(order())
    assert workshop.wait(job.id, LONG).state is State.FAILED
    assert workshop.paused
    with Ear(workshop) as ear:
        workshop.resume(job.id)
        ear.wait_for("failed")  # it was tried once more
    workshop.pause("a person asked")
    workshop.resume(job.id)
    assert workshop.paused == "a person asked"


def test_a_job_that_was_removed_meanwhile_fails_alone(place):
    workshop = place.workshop()
    workshop.pause()
    gone, good = workshop.submit(order()), workshop.submit(order())
    place.vault.delete([gone.id])
    workshop.unpause()
    assert workshop.wait(good.id, LONG).state is State.DONE
    assert workshop.find(gone.id).state is State.FAILED


def test_init_and_mask_wait_sealed_and_are_sealed_with_the_result(place):
    rng = np.random.default_rng(3)
    init = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    workshop = place.workshop()
    workshop.pause()
    canvas = Canvas(init, mask, "")
    workshop.submit(replace(order(strength=0.8, steps=5), canvas=canvas))
    workshop.close()
    place.again()
    workshop = place.workshop()
    (job,) = workshop.jobs
    assert np.array_equal(job.inputs.init, init)
    assert np.array_equal(job.inputs.mask, mask)
    workshop.resume(job.id)
    workshop.wait(job.id, LONG)
    (record,) = place.vault.list()
    assert {"init", "mask", "picture"} <= set(record.blobs)


def test_wildcards_are_filled_by_the_seed_and_the_template_is_kept(place):
    workshop = place.workshop()
    lists = {"fruit": ["apple", "pear", "plum", "cherry", "fig"]}
    asked = replace(order(prompt="red __fruit__", count=3), lists=lists)
    prompts = []
    for _ in range(2):
        job = workshop.submit(asked)
        workshop.wait(job.id, LONG)
        records = [place.vault.get(each) for each in workshop.find(job.id).made]
        assert {r.metadata["template"] for r in records} == {"red __fruit__"}
        prompts.append([r.metadata["prompt"] for r in records])
    assert prompts[0] == prompts[1]
    assert len(set(prompts[0])) > 1
    with pytest.raises(RequestError, match="no word list 'fruits'; did you mean"):
        workshop.submit(replace(asked, fields=dict(asked.fields) | {"prompt": "a __fruits__"}))


@pytest.fixture(scope="module")
def double(shelf):
    """Give the name of an upscaler on the shelf, by two."""
    source = write_upscaler(shelf.models.parent / "double.onnx")
    shelf.models.mkdir(parents=True, exist_ok=True)
    take_in_upscaler(source, shelf.models / "double", OnnxRuntimeBackend(), lambda *_: None)
    return "double"


def test_a_sealed_picture_is_enlarged_once_into_one_that_names_it(place, double):
    workshop = place.workshop()
    parent = workshop.wait(workshop.submit(order()).id, LONG).made[0]
    workshop = place.workshop(OnnxRuntimeBackend())
    with pytest.raises(BundleError, match="an upscaler is needed"):
        workshop.submit_upscale(parent, "pocket")
    with Ear(workshop) as ear:
        job = workshop.wait(workshop.submit_upscale(parent, double).id, LONG)
        told = ear.wait_for("sealed")
    assert (told["width"], told["height"]) == (256, 256)
    record = place.vault.get(job.made[0])
    assert (record.metadata["parent"], record.metadata["prompt"]) == (parent, "red apple")
    # a crash between sealing the picture and removing the job
    workshop.pause()
    job = workshop.submit_upscale(parent, double)
    place.vault.edit(record.id, lambda metadata: metadata | {"job": {"id": job.id, "index": 0}})
    newer = place.vault.add([Draft(kind=Kind.PICTURE, metadata=Place(job.id, 0).metadata(0))])
    workshop.unpause()
    assert workshop.wait(job.id, LONG).made == (newer[0].id,)


def test_the_vault_stays_open_only_while_there_is_work_that_somebody_wants_done(place):
    workshop = place.workshop()
    workshop.pause()
    job = workshop.submit(order())
    workshop.stay_open(until_done=True)
    assert not workshop.keeps_open  # paused: for how long, nobody knows
    workshop.unpause()
    workshop.wait(job.id, LONG)
    assert not workshop.keeps_open
    workshop.pause()
    job = workshop.submit(order())
    assert not workshop.keeps_open  # asked anew for new work
    workshop.unpause()
    workshop.wait(job.id, LONG)


def test_a_loaded_pipeline_is_kept_for_the_next_job_and_forgotten_at_the_end(place):
    pipelines = Pipelines(place.shelf, FakeBackend)
    asked = [pipelines.bundle("pocket").request(prompt="x", seed=1)]
    first = pipelines.load("pocket", asked)
    assert pipelines.load("pocket", asked) is first
    pipelines.forget()
    assert pipelines.load("pocket", asked) is not first


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


def test_a_record_of_another_form_is_a_failed_job_and_no_error(place):
    for metadata in ({}, {"requests": [{"settings": {"tomorrow": 1}}]}, {"requests": 5}):
        place.vault.add([Draft(kind=Kind.JOB, metadata=metadata)])
    workshop = place.workshop()
    assert [job.state for job in workshop.jobs] == [State.FAILED] * 3
    workshop.cancel_all()
    assert place.count(Kind.JOB) == 0


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
