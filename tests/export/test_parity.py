"""The gate sees what is wrong: in the arithmetic of a comparison, and in a real broken graph."""

import shutil

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from engine.manifest import Measure
from export import Ingredients, ParityError
from export.child import run_job
from export.parity import compare, largest_part
from export.runtimes import fitting
from export.source import open_checkpoint
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
    job = Ingredients(source=source).job() | {"task": "measure", "out": str(bundle)}
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


def test_a_runtime_without_room_is_left_out_and_one_is_always_measured():
    both = ("onnxruntime", "openvino")
    assert fitting(both, weights=10, available=29) == both
    assert fitting(both, weights=10, available=28) == ("onnxruntime",)
    assert fitting(both, weights=10, available=1) == ("onnxruntime",)
    assert fitting(("openvino",), weights=10, available=1) == ("openvino",)


def test_the_largest_part_is_counted_in_f32(tiny_checkpoint):
    checkpoint = open_checkpoint(tiny_checkpoint)
    file = tiny_checkpoint / "unet/diffusion_pytorch_model.safetensors"
    stored = sum(value.size for value in load_file(file).values())
    assert largest_part(checkpoint) == 4 * stored
