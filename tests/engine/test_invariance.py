"""What a picture's noise does not depend on: its company, the device's name, what computes."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

import safelight
from engine import Bundle, FakeBackend, Pipeline, RequestError
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.openvino import OpenVinoBackend
from engine.samplers import tabulate

SHAPE = (1, 4, 8, 8)


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).with_name("models") / "pocket", hash_cache=None)


class Listener:
    """Any back end, which also keeps what its network was shown."""

    def __init__(self, inner):
        self.inner = inner
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        self.libraries = inner.libraries
        self.samples = []

    def load(self, model, shapes, *, identity=""):
        session = self.inner.load(model, shapes, identity=identity)
        return ListeningSession(session, self.samples) if "sample" in shapes else session

    def exact(self):
        return self


class ListeningSession:
    def __init__(self, session, samples):
        self.session, self.samples = session, samples

    def run(self, inputs):
        self.samples.append(inputs["sample"].copy())
        return self.session.run(inputs)


def request(bundle, **given):
    fixed = {"prompt": "red apple", "seed": 7, "steps": 3, "width": 64, "height": 64}
    return bundle.request(**(fixed | given))


def first_sample(bundle, backend, **given):
    """Give what the network is shown first: f32[2, 4, 8, 8], the start's noise twice."""
    listener = Listener(backend)
    events = Pipeline(bundle, listener).generate(request(bundle, **given))
    with contextlib.closing(events):
        next(events)
    return listener.samples[0]


BACKENDS = [
    pytest.param(lambda: FakeBackend(device="card 7", precision="bf16"), id="other fake"),
    pytest.param(lambda: OnnxRuntimeBackend(threads=1), id="onnxruntime"),
    pytest.param(
        lambda: OpenVinoBackend("fp32", None, threads=1), marks=pytest.mark.slow, id="openvino"
    ),
]


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("noise", ["torch", "philox"])
def test_the_back_end_and_the_devices_name_do_not_change_the_noise(bundle, make, noise):
    expected = first_sample(bundle, FakeBackend(), noise=noise)
    assert np.array_equal(first_sample(bundle, make(), noise=noise), expected)


@pytest.mark.parametrize("noise", ["torch", "philox"])
@pytest.mark.parametrize("sampler", ["euler", "euler_a"])
def test_its_place_in_a_batch_does_not_change_the_noise(bundle, noise, sampler):
    """Each evaluation of each picture sees what it sees when the picture is made alone."""
    given = {"noise": noise, "sampler": sampler}
    together = Listener(FakeBackend())
    list(Pipeline(bundle, together).generate(request(bundle, count=4, **given)))
    alone = []
    for index in (2, 0, 3, 1):  # in another order, too
        listener = Listener(FakeBackend())
        list(Pipeline(bundle, listener).generate(request(bundle, seed=7 + index, **given)))
        alone.append((index, listener.samples))
    steps = len(together.samples) // 4
    for index, samples in alone:
        shown = together.samples[index * steps : (index + 1) * steps]
        assert all(np.array_equal(*pair) for pair in zip(shown, samples, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1])
def test_the_start_is_torchs_for_every_seed_that_a_request_may_have(bundle, seed):
    shown = first_sample(bundle, FakeBackend(), seed=seed)
    made = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).numpy()
    # the network sees x / sqrt(sigma**2 + 1), and x starts as noise times initial_scale
    asked = request(bundle)
    table = tabulate(asked.sampler, bundle.training, asked.schedule, asked.steps, asked.eta)
    scale = table.initial_scale / np.sqrt(table.sigmas[0] ** 2 + 1.0)
    # float32 sines and logarithms differ by a few last bits from library to library
    np.testing.assert_allclose(shown, np.repeat(made * scale, 2, axis=0), rtol=1e-5, atol=1e-5)


def test_seed_0_is_a_seed_and_the_last_ones_are_apart(bundle):
    samples = [
        first_sample(bundle, FakeBackend(), seed=seed, noise="philox")
        for seed in (0, 1, 2**32, 2**63 - 2, 2**63 - 1)
    ]
    for index, one in enumerate(samples):
        assert all(not np.array_equal(one, other) for other in samples[index + 1 :])
    again = first_sample(bundle, FakeBackend(), seed=0, noise="philox")
    assert np.array_equal(samples[0], again)


def test_a_batch_ends_at_the_last_seed(bundle):
    assert request(bundle, seed=2**63 - 2, count=2).count == 2
    with pytest.raises(RequestError, match="seed"):
        request(bundle, seed=2**63 - 1, count=2)
