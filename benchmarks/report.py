"""Results as Markdown, CSV and JSON lines."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from benchmarks.document import Configuration, Figure, Result
from benchmarks.plots import Entry, entries_of
from benchmarks.tables import amount, seconds_text
from benchmarks.turns import PICTURE, STEP

__all__ = [
    "by_scenario",
    "csv_rows",
    "json_lines",
    "machine_lines",
    "markdown",
    "overview",
    "remarks",
    "stages",
]

_COLUMNS = (
    "scenario",
    "scenario_hash",
    "date",
    "machine",
    "configuration",
    "batch",
    "stage",
    "p50",
    "p90",
    "p99",
    "variation",
    "outliers",
    "noisy",
    "samples",
    "pictures_an_hour",
    "peak_memory",
    "psnr",
    "ssim",
    "passed",
    "partial",
)


def by_scenario(results: Sequence[Result]) -> Iterator[tuple[Result, list[Entry]]]:
    """Yield the first result of each scenario, and the entries of all that are of it."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.scenario.name, result.scenario.hash), []).append(result)
    for group in groups.values():
        yield group[0], entries_of(group)


def markdown(results: Sequence[Result]) -> str:
    """Give a report: for each scenario an overview, the stages, the machines, what disturbed."""
    lines: list[str] = []
    for first, entries in by_scenario(results):
        row = first.scenario
        weights = ", random weights" if row.random_weights else ""
        lines += [f"# {row.name}, version {row.version}{weights}", ""]
        lines += _table(*overview(entries))
        lines += ["", "Stages: median, p90, p99, coefficient of variation.", ""]
        lines += _table(*stages(entries))
        lines += ["", *machine_lines(entries), *remarks(entries), ""]
    return "\n".join(lines)


def overview(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Give heading and rows: what each configuration needs for a picture, or for a call."""
    if not any(PICTURE in each.configuration.stages for each in entries):
        names = list(dict.fromkeys(name for e in entries for name in e.configuration.stages))
        rows = [
            [name, *(_median(e.configuration.stages.get(name)) for e in entries)] for name in names
        ]
        return ["call", *(each.label for each in entries)], rows
    heading = ["configuration", "a picture", "a step", "pictures an hour", "peak memory", "quality"]
    rows = []
    for each in entries:
        own = each.configuration
        rate = "-" if own.pictures_an_hour is None else f"{own.pictures_an_hour:,.0f}"
        found = [_median(own.stages.get(PICTURE), spread=True), _median(own.stages.get(STEP)), rate]
        rows.append([each.label, *found, amount(own.peak_memory), _quality(own)])
    return heading, rows


def stages(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Give heading and rows: every stage of every configuration."""
    heading = ["configuration", "stage", "p50", "p90", "p99", "variation", "samples"]
    rows: list[list[str]] = []
    for each in entries:
        for name, figure in each.configuration.stages.items():
            texts = [seconds_text(value) for value in (figure.p50, figure.p90, figure.p99)]
            flag = " noisy" if figure.noisy else ""
            far = f", {figure.outliers} outliers" if figure.outliers else ""
            count = f"{len(figure.samples)}{far}"
            rows.append([each.label, name, *texts, f"{figure.variation:.1%}{flag}", count])
    return heading, rows


def csv_rows(results: Sequence[Result]) -> str:
    """Give a line a stage, with a heading; seconds and bytes as numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(row.values() for row in _flat(results))
    return file.getvalue()


def json_lines(results: Sequence[Result]) -> str:
    """Give a JSON object a stage, a line each, with the fields of the CSV."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _flat(results))


def _flat(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for result in results:
        for each in result.configurations:
            quality = each.quality
            for stage, figure in each.stages.items():
                values = (
                    result.scenario.name,
                    result.scenario.hash,
                    result.date,
                    result.machine.id,
                    each.name,
                    each.batch,
                    stage,
                    figure.p50,
                    figure.p90,
                    figure.p99,
                    figure.variation,
                    figure.outliers,
                    figure.noisy,
                    len(figure.samples),
                    each.pictures_an_hour,
                    each.peak_memory,
                    quality.psnr if quality else None,
                    quality.ssim if quality else None,
                    quality.passed if quality else None,
                    result.partial,
                )
                yield dict(zip(_COLUMNS, values, strict=True))


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = [_cell(each) for each in heading]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def machine_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what is known of each machine, a line each."""
    for result in {each.result.machine.id: each.result for each in entries}.values():
        machine = result.machine
        libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
        cards = f"; {', '.join(machine.gpus)}, driver {machine.gpu_driver}" if machine.gpus else ""
        yield (
            f"Machine {machine.id}: {machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB"
            f"{cards}; {machine.system}, kernel {machine.kernel}, Python {machine.python};"
            f" {libraries}. Measured on {result.date} with safelight {result.safelight}."
        )


def remarks(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what a reader has to know, as items of a Markdown list."""
    seen: set[int] = set()
    for each in entries:
        result = each.result
        if each.configuration.note:
            yield f"- {each.label}: {each.configuration.note}"
        if id(result) in seen:
            continue
        seen.add(id(result))
        if result.partial:
            yield "- partial: it was stopped before its end"
        yield from (f"- {warning}" for warning in result.warnings)
        yield from (f"- left out: {name}: {why}" for name, why in result.skipped.items())


def _median(figure: Figure | None, *, spread: bool = False) -> str:
    if figure is None:
        return "-"
    text = seconds_text(figure.p50)
    return f"{text} ±{figure.variation:.0%}" if spread and len(figure.samples) > 1 else text


def _quality(own: Configuration) -> str:
    if own.quality is None:
        return "-"
    word = "" if own.quality.passed else "**failed** "
    return f"{word}{own.quality.psnr:.1f} dB, SSIM {own.quality.ssim:.4f}"
