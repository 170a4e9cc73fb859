import json

import numpy as np
import pytest

from export.errors import ExportError
from export.pocket import checkpoint
from export.pocket.checkpoint import Ledger


def test_arrays_and_header_come_back(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1], "n": np.array([3])}
    checkpoint.save(path, arrays, {"step": 4, "more": {"a": [1, 2]}})
    back, header = checkpoint.load(path)
    np.testing.assert_array_equal(back["x"], arrays["x"])
    assert header == {"step": 4, "more": {"a": [1, 2]}}


def test_a_kill_while_writing_leaves_the_last_whole_one(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": np.zeros(3)}, {"step": 1})
    path.with_name(path.name + ".partial").write_bytes(b"half")
    assert checkpoint.load(path)[1] == {"step": 1}
    checkpoint.save(path, {"x": np.zeros(3)}, {"step": 2})
    assert checkpoint.load(path)[1] == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_an_absent_stage_is_named(tmp_path):
    for read, name in ((checkpoint.load, "a.safetensors"), (checkpoint.read_json, "a.json")):
        with pytest.raises(ExportError, match=name) as caught:
            read(tmp_path / name)
        assert "stage before" in caught.value.hint


def test_the_ledger_is_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "loss.jsonl"
    ledger = Ledger(path, 0)
    for step in (10, 20, 30):
        ledger.add({"step": step, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 40, "lo')  # a kill in the middle of a line
    Ledger(path, 20).add({"step": 30, "loss": 0.4})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(10, 0.5), (20, 0.5), (30, 0.4)]
