"""No prompt and no pixel in the clear: on disk, in logs, in arguments, in the environment."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.e2e.command import PASSPHRASE, QUICK, make_home
from tests.e2e.hunt import found_in, written_files
from tests.safelight.importing.samples import user_comment_jpeg

CANARY = "canary zebra qx7f3a91 umbrella"
CANARY_NEGATIVE = "negative canary kd82hs0f"
CANARY_IMPORTED = "imported canary w93jd7s0"
WRITES = "trace=open,openat,creat,rename,renameat,renameat2,memfd_create,execve"


def require_strace():
    if shutil.which("strace"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("strace is not installed (Debian: strace)")
    pytest.skip("strace is not installed (Debian: strace)")


@pytest.fixture(scope="module")
def hunted(tmp_path_factory):
    """Run the whole main job under a trace, crash once in the middle, and give what is left."""
    require_strace()
    root = tmp_path_factory.mktemp("canary")
    home = make_home(root / "home")
    log = root / "trace"
    home.wrapper = ("strace", "-f", "-qq", "-s", "4096", "-v", "-o", str(log), "-A", "-e", WRITES)
    said = []

    def run(*words, given=""):
        done = home.run(*words, given=given)
        said.append(done.stderr)
        return done.stdout

    request = f'{{"prompt": "{CANARY}", "negative_prompt": "{CANARY_NEGATIVE}", "seed": 9}}'
    run("generate", "--request", "-", *QUICK, given=request)
    run("generate", "-", "--seed", "10", *QUICK, given=CANARY)
    listed = run("ls", "--search", "-", "--json", given="zebra qx7f3a91")
    assert listed.count("\n") == 2  # the words are findable, so they are really stored
    run("reproduce", json.loads(listed.splitlines()[0])["id"], "--keep")
    old = root / "old"  # another program's folder: the person's own files, in the clear
    old.mkdir()
    text = f"{CANARY_IMPORTED}\nSteps: 1, Sampler: Euler, CFG scale: 7"
    (old / "kd7.jpg").write_bytes(user_comment_jpeg(text))
    run("import", str(old))
    assert run("ls", "--search", "-", "--json", given="w93jd7s0").count("\n") == 1
    run("status")
    bad = home.run("generate", "-", "--sampler", "none", status=2, given=CANARY)
    said.append(bad.stderr)
    crash(home, said)
    home.wrapper = ()
    record_id = home.lines("ls", "--limit", "1")[0]["id"]
    png = home.start("reveal", record_id, "--to", "-").communicate(timeout=60)[0]
    return home, log.read_text("utf-8", "replace"), "".join(said), png


def crash(home, said):
    """Kill a run in its first picture: no clean-up code has a chance."""
    process = home.start("generate", "-", "-n", "50", "--json", stdin=-1)
    process.stdin.write(CANARY.encode())
    process.stdin.close()
    assert process.stdout.readline()  # it is in the middle of its work
    said.extend(home.kill(process))


def every_file(home, trace):
    """Give every file below the home, and every file elsewhere that the runs wrote and left."""
    found = {path for path in home.path.rglob("*") if path.is_file()}
    outside = {path for path in written_files(trace) if path.is_file()}
    return found | {path for path in outside if not str(path).startswith(("/dev/", "/proc/"))}


@pytest.mark.parametrize(
    "needle", [CANARY, CANARY_NEGATIVE, CANARY_IMPORTED, "qx7f3a91", PASSPHRASE]
)
def test_no_words_on_disk(hunted, needle):
    home, trace, _, _ = hunted
    files = every_file(home, trace)
    assert len(files) > 5
    own = {home.path / "user" / "passphrase"}  # the person's own file, not ours
    for path in files - own:
        assert found_in(path.read_bytes(), needle.encode()) == [], path


def test_no_pixels_on_disk(hunted):
    home, trace, _, png = hunted
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    stretches = [row.tobytes()[start : start + 120] for row in pixels for start in (0, 120, 240)]
    richest = max(stretches, key=lambda stretch: len(set(stretch)))
    assert len(set(richest)) > 20  # a stretch of picture, not of white
    for path in every_file(home, trace):
        data = path.read_bytes()
        assert found_in(data, richest) == [], path
        assert png[100:160] not in data, path


def test_no_words_in_messages_arguments_and_environment(hunted):
    _, trace, said, _ = hunted
    assert "qx7f3a91" not in said
    assert "kd82hs0f" not in said
    executed = [line for line in trace.splitlines() if "execve(" in line]
    assert executed
    assert not [line for line in executed if re.search("qx7f3a91|kd82hs0f|battery", line)]


def test_no_temporary_file_was_ever_made(hunted):
    home, trace, _, _ = hunted
    ours = (str(home.path), "/dev/", "/proc/", "/sys/")
    stray = {str(path) for path in written_files(trace) if not str(path).startswith(ours)}
    assert stray == set()
