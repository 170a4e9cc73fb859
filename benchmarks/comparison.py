"""Two results of one scenario: what is faster, what is slower, and what is only noise."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.document import Configuration, Figure, Result
from benchmarks.errors import ResultError
from benchmarks.spread import noise, ratio_interval
from safelight.exits import UsageError

__all__ = ["Comparison", "Row", "compare_results", "parse_share"]

FASTER: Final = "faster"
SLOWER: Final = "slower"
NOISE: Final = "inside the noise"
FEW: Final = "too few samples"
FAILED: Final = "other pictures: no win"
# Less than this differs between two runs of one program on a quiet machine.
LEAST: Final = 0.01
ENOUGH: Final = 3  # samples on either side


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One stage of one configuration. before, after: medians in seconds. change: share of before,
    above 0 is slower. noise: the larger spread of the two sides. low, high: 95 % interval of the
    ratio of medians; an infinite one is None.
    """

    configuration: str
    stage: str
    before: float
    after: float
    change: float
    noise: float
    low: float
    high: float | None
    verdict: str

    def fields(self) -> dict[str, Any]:
        """Give the row as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Rows in the order of the second result, and what a reader has to know."""

    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    def slower_than(self, share: float) -> list[Row]:
        """Give the rows that lost more than `share`, beyond the noise."""
        return [row for row in self.rows if row.verdict == SLOWER and row.change > share]

    def verdict(self) -> str:
        """Say in one sentence what came out."""
        count = {word: sum(row.verdict == word for row in self.rows) for word in (FASTER, SLOWER)}
        rest = len(self.rows) - sum(count.values())
        return f"{count[FASTER]} faster, {count[SLOWER]} slower, {rest} with no difference shown"


def parse_share(text: str) -> float:
    """Read `5%` or `0.05`; raises UsageError for what is no share from 0 to 10."""
    number, percent = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        share = float(number) / percent
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10:
        raise UsageError(f"--fail is '{text}'; a share such as 5% or 0.05 is needed")
    return share


def compare_results(before: Result, after: Result) -> Comparison:
    """Compare stage by stage what both have. Raises ResultError for different scenarios."""
    one, other = before.scenario, after.scenario
    if (one.name, one.hash) != (other.name, other.hash):
        versions = (
            f" of version {one.version} and {other.version}" if one.name == other.name else ""
        )
        raise ResultError(
            f"{one.name} and {other.name}{versions} are different scenarios: not compared",
            hint="measure both with the same --scenario, by versions of safelight that share it",
        )
    rows: list[Row] = []
    for new in after.configurations:
        old = before.configuration(new.name)
        if old is not None:
            rows += _rows(old, new)
    if not rows:
        raise ResultError(
            "the two results have no configuration in common",
            hint=f"{_names(before)}; and {_names(after)}",
        )
    return Comparison(rows=tuple(rows), remarks=tuple(_remarks(before, after)))


def judge_stage(old: Figure, new: Figure) -> tuple[float, float, float, str]:
    """Give noise, interval and verdict. A difference counts when it is larger than the spread of
    either side, and when the interval of the ratio leaves 1 out.
    """
    spread = max(noise(old.samples), noise(new.samples), LEAST)
    low, high = ratio_interval(old.samples, new.samples)
    if min(len(old.samples), len(new.samples)) < ENOUGH:
        return spread, low, high, FEW
    change = new.p50 / old.p50 - 1 if old.p50 else 0.0
    if abs(change) <= spread or low <= 1 <= high:
        return spread, low, high, NOISE
    return spread, low, high, SLOWER if change > 0 else FASTER


def _rows(old: Configuration, new: Configuration) -> Iterator[Row]:
    drifted = new.quality is not None and not new.quality.passed
    for stage, figure in new.stages.items():
        before = old.stages.get(stage)
        if before is None:
            continue
        spread, low, high, verdict = judge_stage(before, figure)
        yield Row(
            configuration=new.name,
            stage=stage,
            before=before.p50,
            after=figure.p50,
            change=round(figure.p50 / before.p50 - 1, 4) if before.p50 else 0.0,
            noise=round(spread, 4),
            low=round(low, 4),
            high=round(high, 4) if high != float("inf") else None,
            verdict=FAILED if drifted and verdict == FASTER else verdict,
        )


def _remarks(before: Result, after: Result) -> Iterator[str]:
    if before.machine.id != after.machine.id:
        yield f"other machines: {before.machine.cpu} and {after.machine.cpu}"
    versions = (before.machine.libraries, after.machine.libraries)
    changed = sorted(
        name
        for name in versions[0].keys() & versions[1].keys()
        if versions[0][name] != versions[1][name]
    )
    if changed:
        yield "other versions: " + ", ".join(
            f"{name} {versions[0][name]} and {versions[1][name]}" for name in changed
        )
    if before.scenario.random_weights != after.scenario.random_weights:
        yield "one has random weights, the other a trained model: quality is not comparable"
    for name, each in (("before", before), ("after", after)):
        if each.partial:
            yield f"the result {name} is partial"
        for warning in each.warnings:
            yield f"{name}: {warning}"


def _names(result: Result) -> str:
    names: Sequence[str] = [each.name for each in result.configurations]
    return ", ".join(names) or "none"
