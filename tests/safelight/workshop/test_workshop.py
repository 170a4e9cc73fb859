"""The queue at work, at the shipped seams: FakeBackend, MemoryKeyStore, a real vault on disk."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from engine import FakeBackend, RequestError
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.errors import BundleError
from safelight.canvas import Canvas
from safelight.exits import UsageError
from safelight.workshop import Pipelines, State, Workshop
from safelight.workshop.job import Place
from tests.safelight.workshop.home import LONG, Ear, Refusing, order
from vault import Draft, Kind, StorageError


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


def test_a_lock_waits_for_no_model_that_is_being_read_and_that_one_is_not_kept(place):
    reading, closed = threading.Event(), threading.Event()
    loaded = []

    def choose():
        reading.set()
        closed.wait(LONG)
        return FakeBackend()

    pipelines = Pipelines(place.shelf, choose)
    workshop = Workshop(place.vault, pipelines)
    requests = [pipelines.bundle("pocket").request(prompt="x", seed=1)]
    loading = threading.Thread(
        target=lambda: loaded.append(pipelines.load("pocket", requests)), daemon=True
    )
    closing = threading.Thread(target=workshop.close, daemon=True)
    loading.start()
    assert reading.wait(LONG)
    closing.start()
    closing.join(5)
    was_closed = not closing.is_alive()
    closed.set()
    loading.join(LONG)
    closing.join(LONG)
    assert was_closed
    kept = pipelines.load("pocket", requests)
    assert loaded[0] is not kept
    assert pipelines.load("pocket", requests) is kept


def test_a_record_of_another_form_is_a_failed_job_and_no_error(place):
    for metadata in ({}, {"requests": [{"settings": {"tomorrow": 1}}]}, {"requests": 5}):
        place.vault.add([Draft(kind=Kind.JOB, metadata=metadata)])
    workshop = place.workshop()
    assert [job.state for job in workshop.jobs] == [State.FAILED] * 3
    workshop.cancel_all()
    assert place.count(Kind.JOB) == 0
