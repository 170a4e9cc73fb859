"""`safelight bench` as a person runs it: found by its entry point, measured, compared, stopped."""

import json
import os
import signal
import socket

import pytest

from tests.e2e.command import Home


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Give a home with the result of the shortest run of pictures."""
    home = Home(tmp_path_factory.mktemp("bench"))
    out = home.run("bench", "run", "--repeat", "1", "--json", "a.json").stdout
    return home, out


def test_a_run_measures_every_stage_and_passes_the_gate(measured):
    home, out = measured
    document = json.loads((home.path / "a.json").read_text())
    (own,) = document["configurations"]
    wanted = ["load, cold", "compile", "load, warm", "text", "step", "decode", "seal", "picture"]
    assert list(own["stages"]) == wanted
    assert len(own["stages"]["step"]["samples"]) >= 20
    assert own["quality"]["passed"]
    assert own["quality"]["pictures"] >= 1
    assert own["peak_memory"] > 50 << 20
    assert own["cache_bytes"] > 0
    assert document["scenario"]["bundle_bytes"] > 10 << 20
    assert not document["partial"]
    assert "pictures an hour" in out


def test_the_result_names_nobody_and_nothing_is_left_behind(measured):
    home, _ = measured
    text = (home.path / "a.json").read_text()
    for name in (socket.gethostname(), str(home.path), os.uname().nodename, "apple"):
        assert name not in text
    assert not list((home.path / "cache" / "bench").glob("run-*"))
    assert not list(home.path.rglob("*.png"))


def test_it_is_verified_compared_and_reported(measured):
    home, _ = measured
    assert "signed by" in home.run("bench", "verify", "a.json").stdout
    same = home.run("bench", "compare", "a.json", "a.json", "--fail", "5%").stdout
    assert "0 faster, 0 slower" in same
    rows = home.lines("bench", "compare", "a.json", "a.json")
    assert {row["change"] for row in rows} == {0.0}
    paths = home.run("bench", "report", "a.json", "--to", "r").stdout.split()
    assert [path.rpartition(".")[2] for path in paths] == ["md", "html"]
    assert "<svg" not in (home.path / "r.html").read_text()  # plots are images of their own
    assert (
        "scenario,scenario_hash" in home.run("bench", "report", "a.json", "--format", "csv").stdout
    )


def test_a_slower_result_fails_and_a_changed_one_is_refused(measured):
    home, _ = measured
    document = json.loads((home.path / "a.json").read_text()) | {"signature": None}
    step = document["configurations"][0]["stages"]["step"]
    for name in ("p50", "p90", "p99"):
        step[name] *= 4
    step["samples"] = [4 * each for each in step["samples"]]
    (home.path / "slow.json").write_text(json.dumps(document))
    done = home.run("bench", "compare", "a.json", "slow.json", "--fail", "5%", status=6)
    assert "slower than --fail 5% allows" in done.stderr
    assert "not signed" in home.run("bench", "verify", "slow.json").stdout
    changed = (home.path / "a.json").read_text().replace('"load": ', '"load": 1')
    (home.path / "changed.json").write_text(changed)
    assert "changed after it was" in home.run("bench", "verify", "changed.json", status=4).stderr


def test_bad_input_is_one_sentence_with_a_status(measured):
    home, _ = measured
    (home.path / "bad.json").write_text("{")
    for words, said in (
        (("run", "--scenario", "pocket"), "unknown scenario 'pocket'"),
        (("compare", "a.json", "bad.json"), "bad.json is no result of `bench run`"),
        (("report", "none.json"), "none.json cannot be read: No such file"),
    ):
        done = home.run("bench", *words, status=2)
        assert said in done.stderr
        assert done.stdout == ""


def test_control_c_keeps_what_was_measured_and_marks_it(tmp_path):
    home = Home(tmp_path)
    words = ("run", "--scenario", "vault-seal", "--repeat", "1000", "--json", "cut.json")
    process = home.start("bench", *words)
    for line in iter(process.stderr.readline, b""):
        if b"turn 5" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads((tmp_path / "cut.json").read_text())
    assert document["partial"]
    (own,) = document["configurations"]
    assert 5 <= len(own["stages"]["seal in memory"]["samples"]) < 1000
    assert "signed by" in home.run("bench", "verify", "cut.json").stdout
