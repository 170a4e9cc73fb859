"""The acceptance run on a card, as a dry run on the processor: every row runs or says why not."""

import gzip
import json
import math
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import safelight
from benchmarks.gpu.__main__ import LEAST
from benchmarks.gpu.compiled import measure_context, measure_plan
from benchmarks.gpu.graphs import MODELS, SKELETONS, graph_of
from benchmarks.gpu.orders import Order, step_program, step_shapes
from benchmarks.gpu.report import markdown
from benchmarks.gpu.rows import LATE, ROWS, reference
from benchmarks.gpu.timing import psnr, timed
from engine.backends.cuda import processor_place
from engine.backends.cudadevice import CudaDevice
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import Provider
from engine.backends.ortstep import open_step
from engine.backends.ortvalues import OrtValues
from engine.onnxgraph import read_onnx_graph
from tests.engine.trt_standin import Cuda, TensorRt

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
        assert row["build_s"] >= 0
        assert row["load_s"] > 0
    assert rows["torch + CUDA graph"]["absent"] == "LookupError: CUDA graphs take a card"
    for name in (*ROWS["tensorrt"], *ROWS["onnxruntime-tensorrt"]):
        assert rows[name]["absent"].endswith("builds for cards alone")
    assert list(rows)[-4:] == [name for each in LATE for name in ROWS[each]]
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


def test_unknown_models_and_runtimes_are_refused():
    assert "unknown model 'sd9'" in run("--models", "sd9", expected=2).stderr
    told = run("--runtimes", "torch,tensorflow", expected=2).stderr
    assert "unknown runtime 'tensorflow'; one of: torch, onnxruntime, tensorrt" in told


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """One network of each kind of weights, as a card would be asked for it."""
    work = tmp_path_factory.mktemp("orders")
    return {
        name: Order(
            model=MODELS[name],
            pictures=pictures,
            device="cuda",
            counts=(1, 3),
            rounds=2,
            work=work,
            wanted=reference(MODELS[name], pictures, work),
        )
        for name, pictures in (("tiny", 2), ("pocket", 1))
    }


@pytest.mark.parametrize("whole", [False, True], ids=["network", "step"])
@pytest.mark.parametrize("name", ["tiny", "pocket"])
def test_a_plan_is_built_loaded_and_timed(orders, name, whole):
    """Over a stand-in whose plans compute the typed graph, which has fp16's numbers."""
    cuda = Cuda()
    trt = TensorRt(cuda)
    row = measure_plan(orders[name], trt, CudaDevice(0, cuda), whole=whole)
    assert row["psnr"] >= LEAST["fp16"]
    assert set(row["times"]) == {"1", "3"}
    assert row["precision"] == "fp16"
    assert {least == best == most for least, best, most in trt.profiles.values()} == {True}
    assert ("state" if whole else "sample") in trt.profiles
    # Every step that was asked for was a launch: warm-ups and rounds of both counts, at least.
    assert cuda.counts["cudaGraphLaunch"] >= 4 * (1 + 3)
    assert (orders[name].work / "timings").read_bytes() == b"timings"


@pytest.mark.parametrize("whole", [False, True], ids=["network", "step"])
def test_a_context_model_is_built_loaded_and_timed(orders, whole):
    """On the processor's values: the typed graph stands where the engine would."""

    def write(graph, context, ranges, options):
        shutil.copy(graph, context)
        shutil.copy(graph.with_name("model.onnx_data"), context.with_name("model.onnx_data"))
        assert ranges

    versions = {"onnxruntime-gpu": "1.31", "tensorrt": "10.13.2", "driver": "13.0"}
    row = measure_context(orders["tiny"], processor_place(), versions, write, whole=whole)
    assert row["psnr"] >= LEAST["fp16"]
    assert set(row["times"]) == {"1", "3"}
    assert row["libraries"] == {"onnxruntime-gpu": "1.31", "tensorrt": "10.13.2"}


def test_pocket_s_forms_have_its_own_weights(orders):
    work = orders["pocket"].work
    pocket = MODELS["pocket"]
    plain = read_onnx_graph(graph_of(pocket, "plain", work)).weights
    for form in ("fused", "typed"):
        found = read_onnx_graph(graph_of(pocket, form, work)).weights
        same = 0
        for name, array in found.items():
            base, _, how = name.partition("/")
            if base not in plain or array.dtype.kind != "f":
                continue
            own = plain[base]
            own = own.transpose(0, 2, 3, 1) if how == "nhwc" else own
            assert np.array_equal(array, own.astype(array.dtype))
            same += array.size
        assert same > 0.99 * sum(each.size for each in plain.values())


@pytest.mark.parametrize("model", [*MODELS.values()], ids=lambda each: each.name)
@pytest.mark.parametrize("form", ["plain", "fused", "typed"])
def test_every_network_has_every_form_and_its_step_graph(model, form):
    """Of the large ones the skeletons alone are looked at: their weights are drawn on a card."""
    names = [f"{model.name}-unet-{form}-step"]
    names += [f"{model.name}-unet-{form}"] if (model.name, form) != ("pocket", "plain") else []
    for name in names:
        kept = json.loads(gzip.decompress((SKELETONS / f"{name}.json.gz").read_bytes()))
        assert len(kept["graph"]) > 1000
        assert ("weights" in kept) == ("step" not in name)


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


@pytest.mark.parametrize("form", ["plain", "typed"])
def test_one_whole_step_of_pocket_gives_what_its_network_gives(orders, form):
    """Its plain step graph reads the bundle's own weights, the others weights that were written."""
    order = orders["pocket"]
    program = step_program(order)
    session = OnnxRuntimeBackend(Provider(static=True)).open(
        order.graph(f"{form}-step"), step_shapes(program)
    )
    values = OrtValues(runtime())
    place = processor_place()
    step = open_step(runtime(), session, step_shapes(program), values, place.timeline, graphs=False)
    step.begin(program)
    step.enqueue()
    assert psnr(step.latents(), order.wanted[:1]) >= {"plain": 90, "typed": 40}[form]


def test_what_there_is_no_graph_for_is_said(tmp_path):
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
