"""kill -9 during generate: what was acknowledged is there, and the vault opens."""

import json
import random
import select
import time

import pytest

from tests.e2e.command import make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("kill") / "home")


@pytest.mark.parametrize("kills", [6, pytest.param(150, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_by_kills(home, kills):
    """Acknowledged is what was printed: the line comes after the commit, so it must survive.

    The child is killed at a random moment after its first line, sometimes before it, so that
    kills land in start-up, in the network, between write, rename and commit. A program takes
    seconds to start: most kills are those of the vault's own loops, a hundred and 10^4.
    """
    chance = random.Random(kills)  # noqa: S311 - moments, not keys
    acknowledged: set[str] = set()
    for number in range(kills):
        process = home.start("generate", "-", "-n", "99", "--steps", "1", "--json", stdin=-1)
        process.stdin.write(f"bird {number}".encode())
        process.stdin.close()
        wait = chance.uniform(0.1, 1.0) if number % 10 == 0 else chance.uniform(0.0, 0.3)
        if number % 10:
            select.select([process.stdout], [], [], 30)
        time.sleep(wait)
        lines = home.kill(process)[0].split("\n")[:-1]  # an unfinished line is no word
        acknowledged |= {json.loads(line)["id"] for line in lines}
    listed = {each["id"]: each for each in home.lines("ls", "--limit", "100000")}
    assert len(acknowledged) > kills  # the kills did land in the middle of work
    assert acknowledged <= listed.keys()
    with home.opened() as vault:
        for record_id in chance.sample(sorted(acknowledged), min(10, len(acknowledged))):
            assert bytes(vault.read(record_id, "picture")).startswith(b"\x89PNG")


def test_after_the_kills_the_vault_takes_new_pictures(home):
    (made,) = home.lines("generate", "snail", "--steps", "1")
    assert home.lines("ls", "--limit", "1")[0]["id"] == made["id"]
    assert list((home.vault / "incoming").iterdir()) == []  # what the kills left was swept
