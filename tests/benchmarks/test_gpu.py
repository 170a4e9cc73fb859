"""The acceptance run on a card, as a dry run on the processor: every row runs or says why not."""

import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import safelight
from benchmarks.gpu.graphs import MODELS, graph_of
from benchmarks.gpu.report import markdown
from benchmarks.gpu.rows import ROWS
from benchmarks.gpu.timing import psnr, timed
from engine.onnxgraph import read_onnx_graph

ROOT = Path(safelight.__file__).parents[1]


def run(*arguments, expected=0):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        check=False,  # its status is looked at below
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == expected, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("accept")


@pytest.fixture(scope="module")
def report(folder):
    places = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    run("--device", "cpu", "--quick", "--models", "tiny", "--pictures", "2", *places)
    document = json.loads((folder / "out" / "accept-gpu.json").read_text())
    return document, (folder / "out" / "accept-gpu.md").read_text()


def test_every_row_is_there_and_near_fp32_or_says_why_not(report):
    document, text = report
    rows = document["results"]["tiny, 2 pictures"]
    assert set(rows) == {name for each in ROWS.values() for name in each}
    ran = {name: row for name, row in rows.items() if "absent" not in row}
    assert {"torch eager", "ONNX Runtime plain", "safelight: one graph a step"} <= set(ran)
    for row in ran.values():
        assert row["psnr"] >= 90
        assert set(row["times"]) == {"1", "4"}
        assert row["includes"]
    assert rows["torch + CUDA graph"]["absent"] == "LookupError: CUDA graphs take a card"
    assert "kernels for cards alone" in rows["ONNX Runtime fused"]["absent"]
    assert document["faults"] == []
    assert all(name in text for name in rows)
    assert "## tiny, 2 pictures" in text


@pytest.mark.usefixtures("report")  # its reference is used again
def test_a_card_that_is_not_here_leaves_every_row_absent_with_its_reason(folder, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    places = ["--out", str(tmp_path), "--work", str(folder / "work")]
    run("--quick", "--models", "tiny", "--pictures", "2", *places)
    rows = json.loads((tmp_path / "accept-gpu.json").read_text())["results"]["tiny, 2 pictures"]
    assert "torch finds no NVIDIA card" in rows["torch eager"]["absent"]
    assert all("absent" in row for row in rows.values())


def test_an_unknown_model_is_refused():
    assert "unknown model 'sd9'" in run("--models", "sd9", expected=2).stderr


def test_a_row_far_from_fp32_is_a_fault():
    document = {
        "date": "2026-01-01",
        "card": "a card",
        "driver": "none",
        "machine": {"system": "Linux", "python": "3"},
        "seconds": 1,
        "results": {"tiny, 1 picture": {"one": {"absent": "no torch"}}},
        "faults": ["tiny, 1 picture, other: 12 dB"],
    }
    text = markdown(document)
    assert "| one | absent: no torch |" in text
    assert "- tiny, 1 picture, other: 12 dB" in text
    assert psnr(np.ones(4), np.array([0.0, 1, 0, 1])) < 10
    assert psnr(np.array([math.nan]), np.ones(1)) == -1.0
    assert psnr(np.ones(3), np.ones(3)) == 200.0


def test_both_forms_of_a_network_have_the_same_numbers(tmp_path):
    model = MODELS["tiny"]
    plain, fused = (read_onnx_graph(graph_of(model, form, tmp_path)) for form in ("plain", "fused"))
    name = "conv_in.weight"
    assert np.array_equal(plain.weights[name].transpose(0, 2, 3, 1), fused.weights[f"{name}/nhwc"])
    norms = [n for n in plain.weights if n.endswith("norm1.weight")]
    assert norms
    assert all((plain.weights[n] == 1).all() for n in norms)
    matrix = plain.weights["time_embedding.linear_1.weight"].astype(np.float64)
    assert 0.7 < matrix.std() * math.sqrt(matrix.shape[1]) < 1.3  # keeps activations near 1
    assert zlib.crc32(plain.weights[name].tobytes()) == zlib.crc32(
        read_onnx_graph(graph_of(model, "plain", tmp_path / "again")).weights[name].tobytes()
    )


def test_what_there_is_no_graph_for_is_said(tmp_path):
    with pytest.raises(LookupError, match="pocket's fused form is made by"):
        graph_of(MODELS["pocket"], "fused", tmp_path)
    with pytest.raises(LookupError, match=r"no tiny-unet-odd\.json\.gz"):
        graph_of(MODELS["tiny"], "odd", tmp_path)


def test_times_are_of_all_steps_and_the_warm_up_is_not_among_them():
    asked, waited, begun = [], [], []
    times = timed(
        lambda: asked.append(1), lambda: waited.append(1), (1, 3), 4, reset=lambda: begun.append(1)
    )
    assert set(times) == {"1", "3"}
    assert times["3"]["runs"] == 4
    assert (len(asked), len(waited), len(begun)) == (6 + 18, 12, 12)
