"""A process that is killed while it makes pictures: the queue is offered again, nothing twice."""

import os
import subprocess
import sys
from pathlib import Path

from engine import FakeBackend
from safelight.shelf import Shelf
from safelight.workshop import Pipelines, State, Workshop
from vault import PassphraseUnlock, create, open_vault, passphrase_secret

ROOT = Path(__file__).parents[3]
PASSPHRASE = "correct horse battery staple"
LONG = 60.0


def test_after_a_kill_the_rest_is_made_and_nothing_twice(tmp_path):
    secret = passphrase_secret(PASSPHRASE)
    create(tmp_path / "vault", keystore=None, passphrase=secret, confirm=lambda _: None).close()
    arguments = [sys.executable, "-m", "tests.safelight.workshop.crashing", tmp_path, PASSPHRASE]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(arguments, cwd=ROOT, env=environ, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if line.strip() == b"sealed":
                break
        process.kill()
    vault = open_vault(tmp_path / "vault", PassphraseUnlock(passphrase_secret(PASSPHRASE)))
    with vault:
        assert 1 <= len(list(vault.list())) < 40
        shelf = Shelf(tmp_path / "models", tmp_path / "cache")
        workshop = Workshop(vault, Pipelines(shelf, FakeBackend))
        first, second = workshop.jobs
        assert {first.state, second.state} == {State.OFFERED}
        workshop.resume_all()
        assert workshop.wait(second.id, LONG).state is State.DONE
        workshop.close()
        seeds = [r.metadata["settings"]["seed"] for r in vault.list()]
        assert sorted(seeds) == sorted([*range(1, 41), 1])
