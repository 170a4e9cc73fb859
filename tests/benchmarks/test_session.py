"""Orders, room and bad input: one sentence each, with a status, before anything is measured."""

import pytest

from benchmarks.cli import _check_target, _conclude, _order
from benchmarks.errors import DriftError, RoomError, WorkerError
from benchmarks.guards import Surroundings
from benchmarks.models import find_model
from benchmarks.scenarios import GIB, find
from benchmarks.session import Order, Session
from engine.cgroups import ControlGroups
from safelight.cli.beside import MissingVerbError, _load
from safelight.exits import ExitStatus, UsageError, exit_status
from safelight.settings import load_settings
from safelight.shelf import Shelf
from tests.benchmarks.made_results import quality, result


def order(scenario="pocket-128", backend="auto", precision="auto", batch="1", repeat=0, model=""):
    return _order(scenario, backend, precision, batch, repeat, model)


def test_several_cards_are_one_device():
    made = order(backend="auto,cuda:0,1,onnxruntime,cuda:2")
    assert made.backends == ("auto", "cuda:0,1", "onnxruntime", "cuda:2")


def test_an_order_is_every_combination():
    made = order(backend="openvino,onnxruntime", precision="fp32,bf16", batch="1,4", repeat=3)
    assert made.ways == 8
    assert (made.batches, made.rounds) == ((1, 4), 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scenario": "pocket-182"}, "unknown scenario 'pocket-182'; did you mean 'pocket-128'"),
        ({"backend": "openvno"}, "unknown device 'openvno'; did you mean 'openvino'"),
        ({"backend": "openvino,"}, "unknown device ''"),
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean 'bf16'"),
        ({"batch": "0"}, "batch is '0'; whole numbers from 1 to 64"),
        ({"batch": "1,two"}, "batch is 'two'"),
        ({"repeat": -1}, "repeat is -1"),
    ],
    ids=["scenario", "device", "empty", "precision", "batch", "word", "repeat"],
)
def test_what_cannot_be_ordered_is_said_with_the_nearest_name(given, said):
    with pytest.raises(Exception, match=said) as told:
        order(**given)
    assert exit_status(told.value) is ExitStatus.USAGE


def test_a_file_that_cannot_be_written_is_refused_before(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        _check_target(tmp_path)
    with pytest.raises(UsageError, match="lies in none"):
        _check_target(tmp_path / "none" / "x.json")
    _check_target(tmp_path / "x.json")


def session(tmp_path, memory_kb):
    proc = tmp_path / "root" / "proc"
    proc.mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemAvailable: {memory_kb} kB\n")
    (proc / "loadavg").write_text("0.0 0 0 1/1 1\n")
    root = tmp_path / "root"
    groups = ControlGroups(membership=root / "self", root=root / "fs")
    said = []
    made = Session(
        settings=load_settings({"home": str(tmp_path / "home")}),
        say=said.append,
        stop=lambda: False,
        surroundings=Surroundings(root=root, groups=groups),
    )
    return made, said


def test_too_little_memory_says_how_much_it_needs_before_it_starts(tmp_path):
    made, said = session(tmp_path, 3 << 20)
    wanted = Order(scenario=find("sd15-512"), precisions=("fp32", "bf16"))
    with pytest.raises(RoomError) as told:
        made.run(wanted)
    assert str(told.value) == (
        "sd15-512 needs 10.0 GiB of memory for 2 configurations side by side; 3.0 GiB are free"
    )
    assert exit_status(told.value) is ExitStatus.DEVICE
    assert said == ["sd15-512 takes about 10 GiB of memory, and 10 GiB once to make its model"]
    assert not (tmp_path / "home").exists()


def test_a_model_that_cannot_be_made_for_want_of_memory_says_so(tmp_path):
    shelf = Shelf(tmp_path / "models", tmp_path)
    with pytest.raises(RoomError, match=r"needs 10 GiB of memory once; 6\.0 GiB are free"):
        find_model(find("sd15-512"), shelf, tmp_path, memory=6 * GIB, say=print)


def test_a_model_of_another_architecture_is_refused(tmp_path):
    shelf = Shelf(tmp_path / "models", tmp_path)
    with pytest.raises(UsageError, match="another architecture than scenario sd15-512"):
        find_model(find("sd15-512"), shelf, tmp_path, name="pocket", memory=GIB, say=print)
    found = find_model(find("pocket-128"), shelf, tmp_path, memory=GIB, say=print)
    assert not found.random


def test_what_failed_the_gate_ends_with_six():
    _conclude(result({"picture": [1.0]}, like=quality(40.0, passed=True)))
    with pytest.raises(DriftError, match=r"other pictures than fp32: 19\.0 dB, at least 32"):
        _conclude(result({"picture": [1.0]}, like=quality(19.0, passed=False)))


def test_nothing_measured_says_why():
    empty = result({"picture": [1.0]}, skipped={"cuda": "there is no card"}, configurations=())
    with pytest.raises(WorkerError, match="nothing could be measured: cuda: there is no card"):
        _conclude(empty)


def test_an_installation_without_the_package_says_so():
    with pytest.raises(MissingVerbError, match="has no `safelight nothing`") as told:
        _load("nothing")
    assert exit_status(told.value) is ExitStatus.NOT_FOUND
    assert set(_load("bench")) == {"run", "compare", "report", "verify"}
