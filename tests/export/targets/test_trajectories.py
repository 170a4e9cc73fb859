"""What is recorded is what the engine's own loop gives each component, from noise to picture."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle
from engine.backends.fake import FakeBackend
from engine.pipeline import Pipeline
from export.targets.trajectories import OBSERVED_STEPS, Recorder, recorded_inputs

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


def test_every_component_is_recorded_along_a_real_path(bundle):
    runs = recorded_inputs(bundle)
    assert set(runs) == set(bundle.manifest.components)
    steps = runs["unet"]
    assert len(steps) == OBSERVED_STEPS
    times = [float(step["timestep"]) for step in steps]
    assert times == sorted(times, reverse=True)
    assert times[0] > 900
    assert times[-1] < 300
    spread = [float(step["sample"].std()) for step in steps]
    assert spread[0] == pytest.approx(1, abs=0.1)  # unit noise at the beginning
    assert all(step["sample"].shape[0] == 2 for step in steps)  # both halves of guidance
    assert not any(np.array_equal(steps[0]["sample"], step["sample"]) for step in steps[1:])
    assert len(runs["text_encoder"]) == 2
    (picture,) = runs["vae_encoder"]
    assert picture["sample"].dtype == np.float32
    assert -1 <= picture["sample"].min() < -0.5 < 0.5 < picture["sample"].max() <= 1


def test_recording_changes_nothing(bundle):
    request = bundle.request(prompt="a pear", seed=3, steps=3)
    backends = FakeBackend(), Recorder(inner=FakeBackend())
    plain, recorded = ([*Pipeline(bundle, each).generate(request)][-1] for each in backends)
    assert np.array_equal(plain.pixels, recorded.pixels)
    assert (plain.backend, plain.device) == (recorded.backend, recorded.device)
    assert len(backends[1].kept["unet"]) == 3
