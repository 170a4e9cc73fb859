"""Processes that serve: they answer, they end, they fail in one sentence, they can be stopped."""

import base64
import sys
import zlib
from dataclasses import replace

import pytest

from benchmarks.children import Child
from benchmarks.drawing import Candidate, Drawing
from benchmarks.errors import WorkerError
from benchmarks.runners import DrawingRunner
from benchmarks.scenarios import find
from benchmarks.turns import Stopped
from safelight.exits import ExitStatus

# Draws grey pictures of 16x16 in no time; `grey` and `precision` come with the first line.
DRAWER = """
import base64, json, sys, zlib
given = json.loads(sys.stdin.readline())
facts = {"backend": given["device"], "device": "CPU", "precision": given["precision"]}
facts["devices"] = given.get("devices", 1)
facts |= {"libraries": {"it": "1/2"}, "threads": 2, "seconds": {"load": 0.5, "compile": 0.25}}
print(json.dumps(facts), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end":
        print(json.dumps({"peak_memory": 7, "peak_gpu_memory": None}), flush=True)
        break
    answer = {"stages": {"picture": [2.0], "step": [0.1] * 10}, "joules": 3.0}
    if asked["pixels"]:
        value = (asked["seed"] // 64 + given["grey"]) % 256
        pixels = bytes([value, 128, 64]) * 256
        answer |= {"size": [16, 16], "pixels": base64.b64encode(zlib.compress(pixels)).decode()}
    print(json.dumps(answer), flush=True)
"""
ROW = find("pocket-128")


def python(program):
    return [sys.executable, "-c", program]


def test_a_child_answers_and_ends():
    child = Child(python("import sys\nfor line in sys.stdin: print(line, end='', flush=True)"))
    assert child.ask({"a": 1}) == {"a": 1}
    assert list(child.each({"end": 2})) == [{"end": 2}]
    child.close()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import json; input(); print(json.dumps({'error': 'no room', 'hint': 'buy'}))", "no room"),
        ("input()", "ended without an answer"),
        ("", "ended"),
    ],
    ids=["error", "silence", "nothing"],
)
def test_what_a_child_cannot_do_is_one_sentence(program, said):
    child = Child(python(program))
    with pytest.raises(WorkerError, match=said) as told:
        child.ask({"do": "x" * 100_000})
    assert told.value.status is ExitStatus.DEVICE
    child.close()


def test_a_stop_ends_the_wait_and_the_child():
    asked = []

    def stop():
        asked.append(0)
        return len(asked) > 2

    child = Child(python("import time; time.sleep(600)"), stop=stop)
    with pytest.raises(Stopped):
        child.ask({})
    child.close()  # comes back at once: the child is killed


def test_no_answer_within_the_limit_is_an_error():
    child = Child(python("import time; time.sleep(600)"), limit=0.1)
    with pytest.raises(WorkerError, match="no answer came within"):
        child.ask({})
    child._stop = lambda: True
    child.close()


def test_pictures_come_through_the_pipe():
    child = Child(python(DRAWER))
    child.ask({"device": "d", "precision": "fp32", "grey": 0})
    runner = DrawingRunner(child, ROW)
    runner.turn(-1)
    runner.turn(3)
    runner.turn(ROW.gate)
    runner.close()
    assert list(runner.pictures) == [3]  # not the warm-up's, none behind the gate
    assert runner.pictures[3].shape == (16, 16, 3)
    assert runner.pictures[3][0, 0].tolist() == [4, 128, 64]
    assert runner.joules == [3.0, 3.0]


def candidate(device, precision, grey=0, program=DRAWER, **more):
    hello = {"device": device, "precision": precision, "grey": grey}
    return Candidate(command=python(program), hello=hello, **more)


def drawing(tmp_path, stop=lambda: False):
    return Drawing(ROW, tmp_path, stop=stop, say=lambda _text: None, limit=60.0)


def test_a_drawing_measures_gates_and_leaves_out(tmp_path):
    reference = candidate("onnxruntime", "fp32")
    broken = "import json; input(); print(json.dumps({'error': 'none at /home/ada/x'}))"
    drawn = drawing(tmp_path).measure(
        [
            candidate("openvino", "bf16", grey=2),
            candidate("openvino", "fp32", grey=90),  # drifts
            candidate("openvino", "bf16"),  # the first one again
            candidate("cuda", "fp16", program=broken),
            candidate("torch", "fp32", grey=90, kind="peer", label="a peer", compared=False),
        ],
        reference,
        rounds=5,
        random=False,
    )
    good, bad, peer = drawn.configurations
    assert drawn.complete
    assert (good.name, bad.name) == ("openvino bf16 batch 1", "openvino fp32 batch 1")
    assert good.quality.passed
    assert good.quality.reference == "onnxruntime fp32"
    assert good.quality.pictures == 4
    assert not bad.quality.passed
    assert peer.quality is None
    assert (peer.kind, list(peer.stages)) == ("peer", ["load", "picture", "step"])
    assert good.stages["picture"].samples == (2.0,) * 5
    assert len(good.stages["load, cold"].samples) == len(good.stages["load, warm"].samples) == 3
    assert good.stages["compile"].p50 == 0.25
    assert (good.pictures_an_hour, good.peak_memory, good.joules_a_picture) == (1800, 7, 3.0)
    assert good.libraries == {"it": "1-2"}
    assert drawn.skipped == {
        "openvino bf16 batch 1, again": "it was asked for twice",
        "cuda fp16": "none at",
    }


def test_more_devices_are_another_configuration(tmp_path):
    one = candidate("cuda", "fp16", batch=4)
    two = replace(one, hello={**one.hello, "devices": 2})
    reference = candidate("onnxruntime", "fp32")
    drawn = drawing(tmp_path).measure([one, two], reference, rounds=1, random=False)
    names = [each.name for each in drawn.configurations]
    assert names == ["cuda fp16 batch 4", "cuda fp16 batch 4 on 2 devices"]
    assert drawn.skipped == {}


def test_a_configuration_in_fp32_of_the_references_library_is_the_reference(tmp_path):
    drawn = drawing(tmp_path).measure(
        [candidate("onnxruntime", "fp32"), candidate("openvino", "bf16")],
        candidate("onnxruntime", "fp32", program="raise SystemExit"),  # is not asked
        rounds=4,
        random=False,
    )
    first, second = drawn.configurations
    assert first.quality is None
    assert second.quality.psnr == 200.0


def test_the_reference_is_drawn_while_nothing_else_is_in_memory(tmp_path):
    there = str(tmp_path / "there")
    stays = f"import atexit, os\nopen({there!r}, 'x')\natexit.register(os.remove, {there!r})\n"
    alone = f"import os\nif os.path.exists({there!r}): raise SystemExit\n"
    drawn = drawing(tmp_path).measure(
        [candidate("openvino", "bf16", program=stays + DRAWER)],
        candidate("onnxruntime", "fp32", program=alone + DRAWER),
        rounds=1,
        random=False,
    )
    assert drawn.skipped == {}
    assert drawn.configurations[0].quality.reference == "onnxruntime fp32"


def test_where_the_references_equal_falls_out_it_is_drawn_after_all(tmp_path):
    starts = str(tmp_path / "starts")
    last = f"with open({starts!r}, 'a') as file: file.write('.')\n"
    last += f"if len(open({starts!r}).read()) == 6: raise SystemExit\n"
    drawn = drawing(tmp_path).measure(
        [
            candidate("onnxruntime", "fp32", program=last + DRAWER),
            candidate("openvino", "bf16", grey=2),
        ],
        candidate("onnxruntime", "fp32"),
        rounds=1,
        random=False,
    )
    judged = [each for each in drawn.configurations if each.name.startswith("openvino")]
    assert judged[0].quality.reference == "onnxruntime fp32"
    assert list(drawn.skipped) == ["onnxruntime fp32"]


def test_without_a_reference_a_result_says_so(tmp_path):
    drawn = drawing(tmp_path).measure(
        [candidate("openvino", "bf16")],
        candidate("onnxruntime", "fp32", program="raise SystemExit"),
        rounds=1,
        random=False,
    )
    assert drawn.configurations[0].quality is None
    assert drawn.skipped == {"the reference": "the measured process ended without an answer"}


def test_an_interrupt_keeps_what_was_measured(tmp_path):
    turns = []
    drawing_ = drawing(tmp_path, stop=lambda: len(turns) > 3)
    drawing_._say = lambda text: turns.append(text) if "turn" in text else None
    drawn = drawing_.measure(
        [candidate("openvino", "bf16")], candidate("onnxruntime", "fp32"), rounds=99, random=False
    )
    (kept,) = drawn.configurations
    assert not drawn.complete
    assert len(kept.stages["picture"].samples) == 4
    assert kept.quality.passed


def test_packed_pictures_are_bounded_by_their_size():
    bomb = base64.b64encode(zlib.compress(bytes(1 << 20))).decode()
    program = f"""
import json, sys
for line in sys.stdin:
    print(json.dumps({{"stages": {{}}, "size": [4, 4], "pixels": "{bomb}"}}), flush=True)
"""
    runner = DrawingRunner(Child(python(program)), ROW)
    with pytest.raises(WorkerError, match="not the size"):
        runner.turn(0)
    runner.close()
