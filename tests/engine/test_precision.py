"""What pocket loses in the precisions that a processor has beside fp32."""

from pathlib import Path

import numpy as np
import pytest

from engine import Bundle, Picture, Pipeline
from engine.backends.openvino import OpenVinoBackend

POCKET = Path(__file__).parents[2] / "safelight" / "models" / "pocket"
PROMPTS = ("red apple", "guitar")


def drawn(bundle, precision):
    pipeline = Pipeline(bundle, OpenVinoBackend(precision, None))
    pictures = []
    for seed, prompt in enumerate(PROMPTS):
        request = bundle.request(prompt=prompt, seed=seed, steps=20)
        events = pipeline.generate(request)
        pictures += [event for event in events if isinstance(event, Picture)]
    assert [picture.precision for picture in pictures] == [precision] * len(PROMPTS)
    assert [picture.repairs for picture in pictures] == [()] * len(PROMPTS)
    return [picture.pixels for picture in pictures]


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def exact(bundle):
    return drawn(bundle, "fp32")


# dB; the worst of twelve pictures of benchmarks.precisions: 44.8 in bf16, 60.8 in fp16.
@pytest.mark.parametrize(
    ("precision", "capability", "least", "most"),
    [("bf16", "BF16", 42.0, 58.0), ("fp16", "FP16", 58.0, 80.0)],
)
def test_a_picture_is_the_one_of_fp32(bundle, exact, precision, capability, least, most):
    if capability not in OpenVinoBackend("fp32", None).capabilities:
        pytest.skip(f"the processor has no {precision} arithmetic")
    for one, other in zip(exact, drawn(bundle, precision), strict=True):
        error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
        assert least < 10 * np.log10(255**2 / error) < most  # above: another precision ran
