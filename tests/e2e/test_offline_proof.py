"""The main job in an empty network namespace, and a trace of every connect it makes."""

import os
import re
import shutil
import subprocess

import pytest

from tests.e2e.command import QUICK, make_home

EMPTY_NETWORK = ("unshare", "--net", "--map-root-user")


def require_namespace():
    done = subprocess.run([*EMPTY_NETWORK, "true"], capture_output=True, check=False)
    if done.returncode == 0 and shutil.which("strace"):
        return
    reason = "no right to make a network namespace, or no strace"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.netns
def test_the_main_job_needs_no_network_and_asks_for_none(tmp_path):
    require_namespace()
    home = make_home(tmp_path / "home")
    log = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-o", str(log), "-e", "trace=connect,sendto,sendmsg,bind")
    home.wrapper = (*EMPTY_NETWORK, *strace)
    (made,) = home.lines("generate", "-", "--seed", "1", *QUICK, given="red apple")
    assert [each["id"] for each in home.lines("ls")] == [made["id"]]
    home.run("reveal", made["id"], "--to", str(tmp_path / "picture.png"))
    trace = log.read_text()
    outward = re.findall(r"sa_family=AF_INET6?\b.*", trace)
    assert outward == []


def test_doctor_counts_sockets_and_finds_none_refused(tmp_path):
    home = make_home(tmp_path / "home")
    (told,) = home.lines("doctor", "--network")
    assert told["network"] == {"this process refused": 0, "this process used locally": 0}
