"""A planted regression is found, planted noise is no win, and what differs in kind is refused."""

import pytest

from benchmarks.comparison import FAILED, FASTER, FEW, NOISE, SLOWER, compare_results, parse_share
from benchmarks.errors import ResultError
from benchmarks.scenarios import find
from safelight.exits import ExitStatus, UsageError
from tests.benchmarks.made_results import machine, quality, result, samples


def verdict(before, after, **more):
    old, new = result({"step": before}), result({"step": after}, **more)
    (row,) = compare_results(old, new).rows
    return row


def test_a_planted_regression_of_ten_percent_is_found():
    row = verdict(samples(0.100, 0.02), samples(0.110, 0.02, seed=1))
    assert row.verdict == SLOWER
    assert row.change == pytest.approx(0.1, abs=0.02)
    assert row.low > 1


def test_it_is_found_under_outliers_too():
    spiked = [*samples(0.110, 0.02, seed=1), 3.0, 0.0001]
    assert verdict(samples(0.100, 0.02), spiked).verdict == SLOWER


def test_the_same_the_other_way_round_is_a_win():
    assert verdict(samples(0.110, 0.02), samples(0.100, 0.02, seed=1)).verdict == FASTER


@pytest.mark.parametrize("seed", range(1, 21))
def test_planted_noise_is_never_a_win_or_a_loss(seed):
    row = verdict(samples(0.1, 0.15, 12), samples(0.1, 0.15, 12, seed=seed))
    assert row.verdict == NOISE


def test_five_percent_in_noise_of_ten_is_not_called_either():
    assert verdict(samples(0.100, 0.1), samples(0.095, 0.1, seed=1)).verdict == NOISE


def test_one_sample_says_nothing():
    assert verdict([1.0], [0.5]).verdict == FEW


def test_what_draws_other_pictures_wins_nothing():
    row = verdict(samples(0.2, 0.01), samples(0.1, 0.01, seed=1), like=quality(19.0, passed=False))
    assert row.verdict == FAILED


def test_a_limit_counts_only_what_is_beyond_the_noise():
    old = result({"step": samples(0.1, 0.02), "text": samples(0.01, 0.2)})
    new = result({"step": samples(0.11, 0.02, seed=1), "text": samples(0.011, 0.2, seed=1)})
    found = compare_results(old, new)
    assert [row.stage for row in found.slower_than(0.05)] == ["step"]
    assert found.slower_than(0.5) == []
    assert found.verdict() == "0 faster, 1 slower, 1 with no difference shown"


def test_different_scenarios_are_refused():
    one = result({"step": [1.0]})
    with pytest.raises(
        ResultError, match="pocket-128 and sd15-512 are different scenarios"
    ) as told:
        compare_results(one, result({"step": [1.0]}, scenario="sd15-512"))
    assert told.value.status is ExitStatus.USAGE
    newer = one.scenario.model_copy(update={"version": 2, "hash": "00"})
    with pytest.raises(ResultError, match="of version 1 and 2"):
        compare_results(one, one.model_copy(update={"scenario": newer}))


def test_results_without_a_common_configuration_are_refused():
    with pytest.raises(ResultError, match="no configuration in common") as told:
        compare_results(result({"step": [1.0]}), result({"step": [1.0]}, name="x"))
    assert "openvino bf16 batch 1; and x" in told.value.hint


def test_a_reader_is_told_of_machines_versions_and_disturbances():
    one = result({"step": [1.0]}, warnings=("the machine runs on its battery",))
    far = machine("ff", "Another Processor").model_copy(update={"libraries": {"numpy": "9"}})
    told = compare_results(one, result({"step": [1.0]}, machine=far, partial=True)).remarks
    assert told == (
        "other machines: A Processor and Another Processor",
        "other versions: numpy 2.4.6 and 9",
        "before: the machine runs on its battery",
        "the result after is partial",
    )


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0)])
def test_shares(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "five", "-1%", "nan", "2000%", "%"])
def test_what_is_no_share(text):
    with pytest.raises(UsageError, match="a share such as 5%"):
        parse_share(text)


def test_the_scenario_of_a_made_result_is_the_tables():
    assert result({"step": [1.0]}).scenario.hash == find("pocket-128").hash
