import pytest

from export.errors import MissingError
from export.pocket.comparison import GOALS, VARIETY, build, compare


def evaluation(**changes):
    report = {
        "concepts": 3,
        "space_accuracy": {"full": 0.99, "shape": 0.97},
        "in_set": {"top1": 0.99, "misses": ["a -> b"]},
        "held_out": {"colour": 0.8, "shape": 0.8, "both": 0.7, "of": 48, "combinations": 24},
        "synonyms": {"top1": 0.8, "misses": []},
        "white": {"mean_off_white": 2.0},
        "vae": {"psnr_mean": 29.0},
        "variety": {"each_oklab": {"apple": 0.3, "bell": 0.1, "only ours": 9.0}},
        "memory": {"own_concept": 1.0, "distance_median": 0.1},
    }
    for name, value in changes.items():
        report[name] = report[name] | value
    return report


FIRST = evaluation(variety={"each_oklab": {"apple": 0.1, "bell": 0.1, "only theirs": 9.0}})


def test_a_goal_is_met_at_its_edge_and_missed_beyond_it():
    assert all(row["met"] for row in compare(evaluation(), FIRST)["measures"].values())
    worse = {
        "in_set": {"top1": 0.98},
        "held_out": {"colour": 0.79, "shape": 0.79},
        "synonyms": {"top1": None},
        "white": {"mean_off_white": 2.1},
        "vae": {"psnr_mean": 28.9},
    }
    rows = compare(evaluation(**worse), FIRST)["measures"]
    assert [name for name, row in rows.items() if not row["met"]] == list(GOALS)


def test_distances_are_compared_over_the_concepts_of_both():
    row = compare(evaluation(), FIRST)["measures"][VARIETY]
    assert (row["concepts"], row["ours"]) == (2, pytest.approx(0.2 / 0.1))
    near = evaluation(variety={"each_oklab": {"apple": 0.1, "bell": 0.1}})
    assert not compare(near, FIRST)["measures"][VARIETY]["met"]


def test_a_folder_that_was_not_evaluated_is_said(tmp_path):
    with pytest.raises(MissingError, match="evaluation-pocket"):
        build(tmp_path, "first")
