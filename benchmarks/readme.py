"""The README's speed tables, made of the committed results and of nothing else.

usage: python -m benchmarks.readme   (writes them between their marks in README.md)
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.document import Result
from benchmarks.measure import RESULTS
from benchmarks.signed import read_signed
from benchmarks.tables import amount, seconds_text
from benchmarks.turns import PICTURE, STEP

__all__ = ["BEGIN", "END", "main", "tables", "with_tables"]

README: Final = Path(__file__).parents[1] / "README.md"
BEGIN: Final = "<!-- figures: made by python -m benchmarks.readme from benchmarks/results -->"
END: Final = "<!-- figures: end -->"
# File -> where in it the figures lie, by name. Each is a summary with a median in seconds.
SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "pocket": ("seconds a picture",),
    "sd15": ("seconds a guided step",),
    "sd15-fp32": ("seconds a guided step",),
    "winograd": ("seconds a decode",),
    "sealing": ("500 kB", "seconds"),
    "vault-scale": ("100000", "seconds"),
    "startup": ("seconds",),
    "gallery": ("seconds",),
    "gallery-plain": ("seconds",),
}


def tables(folder: Path = RESULTS) -> str:
    """Give both tables: of `bench run` and the peers, and of the scripts."""
    return "\n".join([*_results(folder), "", *_scripts(folder)]).strip()


def with_tables(text: str, made: str) -> str:
    """Give the README's text with the tables between their marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def _results(folder: Path) -> Iterator[str]:
    read = [(path, read_signed(path)) for path in sorted(folder.glob("bench-*.json"))]
    pictures = [
        (path, result)
        for path, result in read
        if any(PICTURE in each.stages for each in result.configurations)
    ]
    if not pictures:
        return
    yield "| scenario | configuration | a picture | a step | peak memory | against fp32 | file |"
    yield "|---|---|---|---|---|---|---|"
    for path, result in pictures:
        yield from _pictures(path.name, result)
    machines = {_machine_of(result): None for _, result in pictures}
    yield ""
    yield f"Medians with the coefficient of variation; measured on {'; '.join(machines)}."
    for path, result in pictures:
        yield from (f"In {path.name}: {warning}." for warning in result.warnings)
        yield from (f"In {path.name}, left out: {n}: {why}." for n, why in result.skipped.items())


def _pictures(name: str, result: Result) -> Iterator[str]:
    row = result.scenario
    scenario = f"{row.name}{', random weights' if row.random_weights else ''}"
    for each in result.configurations:
        picture, step, quality = each.stages.get(PICTURE), each.stages.get(STEP), each.quality
        if picture is None:
            continue
        mine = "**safelight** " if each.kind == "safelight" else ""
        like = "-" if quality is None else f"{min(quality.psnr, 99):.0f} dB"
        if quality is not None and not quality.passed:
            like = f"failed, {like}"
        cells = (
            scenario,
            f"{mine}{each.name}",
            f"{seconds_text(picture.p50)} ±{picture.variation:.0%}",
            "-" if step is None else seconds_text(step.p50),
            amount(each.peak_memory),
            like,
            name,
        )
        yield f"| {' | '.join(cells)} |"


def _machine_of(result: Result) -> str:
    machine = result.machine
    return f"{machine.cpu}, {machine.cores} cores, {result.date}"


def _scripts(folder: Path) -> Iterator[str]:
    yield "| measured | medians | machine | file |"
    yield "|---|---|---|---|"
    for name, places in SOURCES.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        document = json.loads(path.read_text("utf-8"))
        found: Any = document["results"]
        for place in places:
            found = found[place]
        machine = document["machine"]
        caption = ", ".join((document["scenario"], *places))
        medians = "; ".join(f"{key} {_median(value)}" for key, value in found.items())
        where = f"{machine['cpu']}, {machine['cores']} cores, {document['date']}"
        yield f"| {caption} | {medians} | {where} | {path.name} |"


def _median(figure: Mapping[str, Any]) -> str:
    spread = f" ±{figure['variation']:.0%}" if figure.get("variation") else ""
    return f"{seconds_text(figure['median'])}{spread}"


def main() -> None:
    """Write the tables into README.md."""
    README.write_text(with_tables(README.read_text("utf-8"), tables()), "utf-8")
    sys.stdout.write(f"{README.name}\n")


if __name__ == "__main__":
    main()
