"""What a measured process draws with: one device or several, whose loads are timed."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from benchmarks.timed import TimedBackend, timed
from benchmarks.worker import timed_pipeline
from engine import Bundle, BundleError, Choice, FakeBackend, Picture, Pipeline
from engine.backends import StepBackend
from engine.backends.cuda import CudaBackend, processor_place
from engine.replicas import Replicas


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def drawn(pipeline, made):
    return [each for each in pipeline.generate(made) if isinstance(each, Picture)]


@pytest.mark.parametrize("others", [0, 2])
def test_all_devices_draw_and_the_loads_of_each_are_timed(bundle, others):
    more = tuple(FakeBackend(device=f"card {k}") for k in range(1, 1 + others))
    choice = Choice(backend=FakeBackend(), reason="asked for", others=more)
    pipeline, backends = timed_pipeline(bundle, choice)
    assert isinstance(pipeline, Replicas if others else Pipeline)
    assert [each.device for each in backends] == ["CPU", "card 1", "card 2"][: 1 + others]
    pipeline.load(64, 64)
    assert all(each.seconds > 0.0 for each in backends)
    made = bundle.request(prompt="red apple", seed=3, steps=2, count=4, width=64, height=64)
    alone = drawn(Pipeline(bundle, FakeBackend()), made)
    for a, b in zip(drawn(pipeline, made), alone, strict=True):
        assert np.array_equal(a.pixels, b.pixels)


def test_a_back_end_of_whole_steps_is_measured_as_one():
    steps = timed(CudaBackend("fp16", None, processor_place()))
    assert isinstance(steps, StepBackend)
    assert steps.how.startswith("one graph a step")
    with pytest.raises(BundleError, match="no form for NVIDIA cards"):  # as the back end says it
        steps.step_model(Path("bundle/unet/model.onnx"), "hash/unet")
    plain = timed(FakeBackend())
    assert isinstance(plain, TimedBackend)
    assert not isinstance(plain, StepBackend)
