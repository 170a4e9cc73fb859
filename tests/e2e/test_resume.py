"""A file of prompts goes on where a kill stopped it: nothing twice, nothing missing."""

import select
import time
from collections import Counter

import pytest

from tests.e2e.command import make_home
from vault import Kind

PROMPTS = ("red apple", "snail", "red apple", "blue bird")  # an equal line is a line of its own
EACH = 3


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("resume") / "home")


@pytest.fixture(scope="module")
def words(home):
    (home.path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return ("generate", "--prompts", "prompts.txt", "-n", str(EACH), "--steps", "2")


def kinds(home):
    """Count the pictures by prompt, and look whether any two are of one place of a line."""
    with home.opened() as vault:
        shown = [dict(record.metadata) for record in vault.list() if record.kind is Kind.PICTURE]
    places = Counter((each["line"]["mark"], each["line"]["index"]) for each in shown)
    assert set(places.values()) <= {1}
    return Counter(each["prompt"] for each in shown), shown


def test_what_a_kill_left_undone_is_done_and_nothing_else(home, words):
    for _ in range(3):
        process = home.start(*words, "--json")
        select.select([process.stdout], [], [], 60)  # something is sealed
        time.sleep(0.1)
        home.kill(process)
    found, _ = kinds(home)
    assert found.total() > 0
    # Lines are drawn together, and how many at once makes no other line of any.
    home.run(*words, "--batch-size", "8")
    found, shown = kinds(home)
    assert found == {"red apple": 2 * EACH, "snail": EACH, "blue bird": EACH}
    for mark in {each["line"]["mark"] for each in shown}:
        mine = [each for each in shown if each["line"]["mark"] == mark]
        seeds = {each["line"]["index"]: each["settings"]["seed"] for each in mine}
        # as if it had been made in one run: the line's seed, and on from there
        assert seeds == {place: mine[0]["line"]["seed"] + place for place in range(EACH)}


def test_done_is_done_until_asked_for_again(home, words):
    done = home.run(*words)
    assert "12 of 12 pictures are sealed already" in done.stderr
    # more pictures of each line: the first ones stay
    more = (*words[:3], "-n", str(EACH + 1), "--steps", "2")
    assert "12 of 16" in home.run(*more).stderr
    assert len(home.lines("ls", "--limit", "1000")) == 16
    # another setting is another job
    assert "sealed already" not in home.run(*words[:3], "-n", "1", "--steps", "1").stderr


def test_what_was_deleted_is_made_again_and_again_means_again(home, words):
    words = (*words[:3], "-n", "1", "--steps", "3")
    first = home.lines(*words)
    home.run("trash", first[0]["id"])
    assert "3 of 4 pictures" in home.run(*words).stderr
    assert len(home.lines(*words, "--again")) == len(PROMPTS)
    home.run("generate", "red apple", "--again", status=2)
