"""Ctrl-C keeps what is finished, records the attempt, and ends with 130."""

import signal

from tests.e2e.command import make_home


def test_control_c_keeps_finished_pictures_and_records_the_attempt(tmp_path):
    home = make_home(tmp_path / "home")
    process = home.start("generate", "red apple", "-n", "500", "--seed", "1", "--json")
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"finished and kept" in said
    printed = len((first + rest).splitlines())
    assert 0 < printed < 500
    assert len(home.lines("ls")) == printed
    (attempt,) = home.lines("ls", "--attempts")
    assert attempt["prompt"] == "red apple"
    (shown,) = home.lines("show", attempt["id"])
    assert shown["outcome"] == "cancelled"
