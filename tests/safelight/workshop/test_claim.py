"""Two galleries on one vault: each sees the jobs, and none takes one that the other may draw."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import FakeBackend
from safelight.exits import UsageError
from safelight.shelf import Shelf
from safelight.workshop import Pipelines, State, Workshop
from tests.safelight.workshop.home import LONG, order
from vault import Kind, PassphraseUnlock, create, open_vault, passphrase_secret

ROOT = Path(__file__).parents[3]
PASSPHRASE = "correct horse battery staple"


def test_a_job_that_another_workshop_may_draw_is_shown_and_left_alone(place):
    first = place.workshop(FakeBackend(seconds_per_run=0.05))
    job = first.submit(order(count=20))
    second = place.workshop()
    assert [each.id for each in second.jobs] == [job.id]
    own = second.submit(order(prompt="blue cat"))  # its own jobs are its own
    for change in (second.resume, second.cancel):
        with pytest.raises(UsageError, match="another gallery has this vault's queue open") as told:
            change(job.id)
        assert told.value.hint
    for change in (second.resume_all, second.cancel_all):
        with pytest.raises(UsageError, match="another gallery"):
            change()
    assert place.vault.get(job.id)
    assert second.wait(own.id, LONG).state in (State.DONE, State.CANCELLED)
    assert first.wait(job.id, LONG).state is State.DONE  # the first goes on with its own
    first.close()
    second.resume(job.id)  # done by the first meanwhile: nothing is drawn again
    assert second.jobs == ()
    seeds = [each.metadata["settings"]["seed"] for each in place.vault.list()]
    assert sorted(each for each in seeds if each > 5) == list(range(6, 25))


def test_who_found_a_job_may_cancel_it_when_the_other_one_has_closed(place):
    first = place.workshop(FakeBackend(seconds_per_run=0.05))
    job = first.submit(order(count=500))
    second = place.workshop()
    first.close()
    second.cancel(job.id)
    assert place.count(Kind.JOB) == 0


def test_a_process_that_is_killed_leaves_its_jobs_to_the_other(tmp_path):
    secret = passphrase_secret(PASSPHRASE)
    create(tmp_path / "vault", keystore=None, passphrase=secret, confirm=lambda _: None).close()
    arguments = [sys.executable, "-m", "tests.safelight.workshop.crashing", tmp_path, PASSPHRASE]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(arguments, cwd=ROOT, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert any(line.strip() == b"sealed" for line in process.stdout)
        unlock = PassphraseUnlock(passphrase_secret(PASSPHRASE))
        with open_vault(tmp_path / "vault", unlock) as vault:
            pipelines = Pipelines(Shelf(tmp_path / "models", tmp_path / "cache"), FakeBackend)
            workshop = Workshop(vault, pipelines)
            job = workshop.jobs[0]
            with pytest.raises(UsageError, match="another gallery"):
                workshop.resume(job.id)
            process.kill()
            process.wait()
            workshop.resume(job.id)
            assert workshop.wait(job.id, LONG).state is State.DONE
            workshop.close()
            seeds = [each.metadata["settings"]["seed"] for each in vault.list()]
            assert sorted(set(seeds)) == list(range(1, 41))
            assert len(seeds) == 40
