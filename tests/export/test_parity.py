"""The gate sees what is wrong: in the arithmetic of a comparison, and in a real broken graph."""

import shutil

import numpy as np
import onnx
import pytest

from engine.manifest import Measure
from export import ParityError
from export.child import run_job
from export.parity import compare
from export.thresholds import THRESHOLDS, judge

X = np.linspace(-2, 2, 101, dtype=np.float32)


def test_equal_is_200_db():
    same = compare("unet", "onnxruntime", X, X.copy())
    assert (same.max_abs, same.mean_abs, same.psnr) == (0, 0, 200)
    assert same.cosine == pytest.approx(1)


def test_errors_are_relative_to_the_largest_value():
    measure = compare("unet", "onnxruntime", X * np.float32(1.01), X)
    assert measure.max_abs == pytest.approx(0.01, rel=1e-3)
    rms = 0.01 * np.sqrt(np.mean(X.astype(np.float64) ** 2))
    assert measure.psnr == pytest.approx(20 * np.log10(4 / rms), abs=0.01)
    small = compare("unet", "onnxruntime", X / 1000 + np.float32(0.5), X / 1000)
    assert small.max_abs == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("bad", [X[:-1], np.where(X > 1, np.nan, X), np.where(X > 1, np.inf, X)])
def test_what_is_not_finite_or_of_another_shape_never_passes(bad):
    measure = compare("unet", "onnxruntime", bad.astype(np.float32), X)
    with pytest.raises(ParityError):
        judge((measure,), {"unet": THRESHOLDS["fp32"]["unet"]})


def measures(source, bundle) -> tuple[Measure, ...]:
    job = {"task": "measure", "source": str(source), "out": str(bundle)}
    found = run_job(job, lambda stage, fraction: None)["measures"]
    return tuple(Measure(**item) for item in found)


def test_one_wrong_weight_in_the_unet_fails_the_unet_alone(tmp_path, tiny_checkpoint, tiny_bundle):
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    model = onnx.load(broken / "unet/model.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.name == "conv_out.weight")
    offset = next(int(e.value) for e in tensor.external_data if e.key == "offset")
    with (broken / "unet/model.onnx_data").open("rb+") as data:
        data.seek(offset)
        value = np.frombuffer(data.read(2), np.float16)[0]
        data.seek(offset)
        data.write(np.float16(value + 0.05).tobytes())
    found = measures(tiny_checkpoint, broken)
    with pytest.raises(ParityError, match="unet by onnxruntime"):
        judge(found, THRESHOLDS["fp16"])
    good = tuple(m for m in found if m.subject not in {"unet", "trajectory", "picture"})
    judge(good, {name: THRESHOLDS["fp16"][name] for name in {m.subject for m in good}})
