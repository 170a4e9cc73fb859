"""The gate's judgement: every subject, every bound, and nothing forgotten."""

from dataclasses import replace

import pytest

from engine.manifest import Measure
from export import ParityError
from export.recipes import RECIPES
from export.thresholds import THRESHOLDS, bounds_of, judge

BOUNDS = THRESHOLDS["fp16"]
GOOD = tuple(
    Measure(subject=name, runtime="onnxruntime", max_abs=0.0, mean_abs=0.0, cosine=1.0, psnr=200.0)
    for name in BOUNDS
)


def test_both_precisions_judge_every_component_of_every_family():
    assert set(THRESHOLDS) == {"fp16", "fp32"}
    for recipe in RECIPES:
        parts = {part.name for part in recipe.components}
        for table in THRESHOLDS.values():
            assert set(bounds_of(table, parts)) == parts | {"trajectory", "picture"}


def test_what_is_exact_passes():
    judge(GOOD, BOUNDS)


@pytest.mark.parametrize("subject", BOUNDS)
@pytest.mark.parametrize(
    "worse", [{"max_abs": 1.0}, {"cosine": 0.9}, {"psnr": 20.0}, {"max_abs": float("nan")}]
)
def test_one_bad_measure_fails_and_is_named(subject, worse):
    measures = tuple(replace(m, **worse) if m.subject == subject else m for m in GOOD)
    with pytest.raises(ParityError, match=f"{subject} by onnxruntime") as caught:
        judge(measures, BOUNDS)
    assert "nothing was kept" in caught.value.hint


def test_a_forgotten_subject_fails():
    with pytest.raises(ParityError, match="did not measure picture"):
        judge(tuple(m for m in GOOD if m.subject != "picture"), BOUNDS)
