"""Plots of results as SVG, in a light and a dark form (matplotlib, its objects alone).

Each says one thing; colours are Okabe and Ito's, which people who see fewer colours tell apart.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Final

from benchmarks.document import Configuration, Result
from benchmarks.errors import MissingError
from benchmarks.turns import PICTURE, STEP

__all__ = ["DARK", "LIGHT", "Entry", "Plot", "Theme", "entries_of", "plots"]

WIDTH: Final = 8.4  # inches
ROW: Final = 0.42  # inches of height a bar
STACKED: Final = ("text", "denoise", "decode", "seal")  # of one picture, in this order
MOST_ROWS: Final = 24
ALIKE: Final = 70.0  # dB; above it two pictures differ by fewer than one byte in a hundred


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours of one form: of what is written, of lines behind it, and of the series."""

    name: str
    paper: str
    ink: str
    line: str
    series: tuple[str, ...]


LIGHT: Final = Theme(
    name="light",
    paper="#ffffff",
    ink="#24292f",
    line="#d7dce1",
    series=("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
)
DARK: Final = Theme(
    name="dark",
    paper="#16191d",
    ink="#dfe3e8",
    line="#3a4149",
    series=("#56b4e9", "#f0b93a", "#2fc79b", "#e3a0c6", "#ff8a4c", "#8fa3b8"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration of one result, under the name that plots and tables call it by."""

    label: str
    result: Result
    configuration: Configuration


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One plot. says: what it shows, for those who cannot see it. draw(theme, form): its bytes, in
    a form that matplotlib writes (svg, png).
    """

    title: str
    says: str
    draw: Callable[[Theme, str], bytes]


def entries_of(results: Sequence[Result]) -> list[Entry]:
    """Give all configurations; where machines differ, each label names its own."""
    machines = {result.machine.id for result in results}
    runs = {(result.machine.id, result.date) for result in results}
    found: list[Entry] = []
    taken: dict[str, int] = {}
    for result in results:
        for each in result.configurations:
            label = each.name
            if len(machines) > 1:
                label += f" · {result.machine.cpu[:24].strip()} {result.machine.id[:4]}"
            elif len(runs) > 1:
                label += f" · {result.date}"
            taken[label] = taken.get(label, 0) + 1
            if taken[label] > 1:
                label += f" ({taken[label]})"
            found.append(Entry(label, result, each))
    return found


def plots(entries: Sequence[Entry]) -> Iterator[Plot]:
    """Yield the plots that these entries of one scenario have something to say in."""
    if find_spec("matplotlib") is None:
        raise MissingError(
            "plots need matplotlib, which is not installed",
            hint="pip install 'safelight[bench]'; --format md, csv and jsonl need nothing more",
        )
    shown = list(entries)[:MOST_ROWS]
    pictures = [each for each in shown if PICTURE in each.configuration.stages]
    if pictures:
        yield _plot("Where a picture's time goes", _stages, pictures, "seconds by stage")
    if timed := [each for each in pictures if STEP in each.configuration.stages]:
        yield _plot("Step times", _distribution, timed, "each step's time, with its quartiles")
    rates = _by_batch(pictures)
    if any(len(points) > 1 for points in rates.values()):
        yield _plot("Throughput by batch", _throughput, pictures, "pictures an hour by batch")
    if judged := [each for each in pictures if each.configuration.quality is not None]:
        yield _plot("Quality and speed", _quality, judged, "PSNR against fp32 by pictures an hour")
    if len({each.result.machine.id for each in pictures}) > 1:
        yield _plot("Machine by machine", _machines, pictures, "seconds a picture by machine")
    if vaults := [each for each in shown if each.configuration.kind == "vault"]:
        yield _plot("The vault's calls", _calls, vaults, "median milliseconds of each call")


def _plot(
    title: str, paint: Callable[[Any, Theme, Sequence[Entry]], None], entries: Any, what: str
) -> Plot:
    def draw(theme: Theme, form: str) -> bytes:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas

        # Salted by title and theme, so that the same result gives the same bytes.
        settings: Any = {"svg.hashsalt": f"{title} {theme.name}", "font.size": 10.0}
        with mpl.rc_context(settings):
            canvas = Canvas(figsize=(WIDTH, 3.4), layout="constrained", facecolor=theme.paper)
            paint(canvas, theme, entries)
            for axes in canvas.axes:
                _dress(axes, theme)
            file = BytesIO()
            metadata = {"Date": None, "Creator": None} if form == "svg" else None
            canvas.savefig(file, format=form, metadata=metadata, dpi=110)
        return file.getvalue()

    names = "; ".join(each.label for each in entries)
    return Plot(title=title, says=f"{what}: {names}", draw=draw)


def _dress(axes: Any, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.ink, length=0)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(theme.ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.line)
    axes.set_axisbelow(True)
    legend = axes.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set_color(theme.ink)


def _rows(canvas: Any, entries: Sequence[Entry], extra: float) -> Any:
    """Give axes with one row an entry, the first one on top."""
    canvas.set_size_inches(WIDTH, ROW * len(entries) + extra)
    axes = canvas.add_subplot()
    axes.set_yticks(range(len(entries)), [each.label for each in entries])
    axes.set_ylim(len(entries) - 0.4, -0.6)
    return axes


def _stages(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    axes = _rows(canvas, entries, 1.5)
    parts = [_parts(each.configuration) for each in entries]
    left = [0.0] * len(entries)
    for stage, colour in zip(STACKED, theme.series, strict=False):
        widths = [each.get(stage, 0.0) for each in parts]
        if any(widths):
            axes.barh(range(len(entries)), widths, left=left, color=colour, label=stage, height=0.6)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, each in enumerate(entries):
        whole = each.configuration.stages[PICTURE].p50
        axes.text(max(left[row], whole), row, f"  {_short(whole)}", va="center", color=theme.ink)
    axes.set_xlim(0, 1.2 * max(*left, *(e.configuration.stages[PICTURE].p50 for e in entries)))
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_xlabel("seconds; the number is the whole picture's median")
    axes.legend(ncols=len(STACKED), loc="lower left", bbox_to_anchor=(0, 1))


def _parts(each: Configuration) -> dict[str, float]:
    """Give the medians of one picture's stages; all of its steps together are `denoise`."""
    stages = each.stages
    found = {name: stages[name].p50 for name in ("text", "decode", "seal") if name in stages}
    if STEP in stages:
        pictures = len(stages[PICTURE].samples) * each.batch
        found["denoise"] = sum(stages[STEP].samples) / pictures
    return found


def _distribution(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    axes = _rows(canvas, entries, 1.1)
    for row, each in enumerate(entries):
        samples = [1000 * value for value in each.configuration.stages[STEP].samples]
        colour = theme.series[row % len(theme.series)]
        # The golden ratio spreads neighbours evenly over the row's height, the same every time.
        heights = [row + 0.5 * ((place * 0.618034) % 1 - 0.5) for place in range(len(samples))]
        axes.scatter(samples, heights, s=6, color=colour, alpha=0.45, linewidths=0)
        axes.boxplot(
            samples,
            positions=[row],
            orientation="horizontal",
            widths=0.62,
            showfliers=False,
            manage_ticks=False,
            boxprops={"color": theme.ink},
            whiskerprops={"color": theme.ink},
            capprops={"color": theme.ink},
            medianprops={"color": theme.ink, "linewidth": 2},
        )
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_xlabel("milliseconds a step; box: quartiles and median, points: all steps")


def _by_batch(entries: Sequence[Entry]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for each in entries:
        own = each.configuration
        name = each.label.replace(f" batch {own.batch}", "")
        if own.pictures_an_hour is not None:
            found.setdefault(name, []).append((own.batch, own.pictures_an_hour))
    return {name: sorted(points) for name, points in found.items()}


def _throughput(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    canvas.set_size_inches(WIDTH, 3.6)
    axes = canvas.add_subplot()
    series = _by_batch(entries)
    for place, (name, points) in enumerate(series.items()):
        colour = theme.series[place % len(theme.series)]
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    batches = sorted({batch for points in series.values() for batch, _ in points})
    axes.set_xticks(batches, [str(each) for each in batches])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_xlabel("pictures a request")
    axes.set_ylabel("pictures an hour")
    axes.legend(loc="best")


def _quality(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    canvas.set_size_inches(WIDTH, 3.4 + 0.26 * len(entries))
    axes = canvas.add_subplot()
    bounds: dict[str, float] = {}
    for place, each in enumerate(entries):
        own, quality = each.configuration, each.configuration.quality
        if quality is None or own.pictures_an_hour is None:
            continue
        colour = theme.series[place % len(theme.series)]
        label = each.label if quality.passed else f"{each.label}: failed"
        axes.scatter(
            [own.pictures_an_hour],
            [min(quality.psnr, ALIKE)],
            s=80,
            color=colour,
            marker="o" if quality.passed else "X",
            label=label,
        )
        bounds.setdefault(own.precision, quality.least_psnr)
    for precision, least in bounds.items():
        axes.axhline(least, color=theme.ink, linewidth=0.9, linestyle=":")
        axes.text(
            1, least, f" least, {precision}", transform=axes.get_yaxis_transform(), color=theme.ink
        ).set_verticalalignment("center")
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(color=theme.line, linewidth=0.6)
    axes.set_xlabel("pictures an hour")
    axes.set_ylabel(f"PSNR against fp32, dB, up to {ALIKE:.0f}")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))


def _machines(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    axes = _rows(canvas, entries, 1.0)
    machines = list(dict.fromkeys(each.result.machine.id for each in entries))
    for row, each in enumerate(entries):
        figure = each.configuration.stages[PICTURE]
        place = machines.index(each.result.machine.id)
        axes.barh(row, figure.p50, color=theme.series[place % len(theme.series)], height=0.6)
        axes.text(figure.p50, row, f"  {_short(figure.p50)}", va="center", color=theme.ink)
    axes.set_xlim(0, 1.2 * max(e.configuration.stages[PICTURE].p50 for e in entries))
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_xlabel("seconds a picture, median; a colour a machine")


def _calls(canvas: Any, theme: Theme, entries: Sequence[Entry]) -> None:
    names = list(dict.fromkeys(name for each in entries for name in each.configuration.stages))
    height = 0.8 / len(entries)
    canvas.set_size_inches(WIDTH, (ROW + 0.12 * len(entries)) * len(names) + 1.4)
    axes = canvas.add_subplot()
    for place, each in enumerate(entries):
        stages = each.configuration.stages
        rows = [row for row, name in enumerate(names) if name in stages]
        values = [1000 * stages[names[row]].p50 for row in rows]
        where = [row + (place - (len(entries) - 1) / 2) * height for row in rows]
        colour = theme.series[place % len(theme.series)]
        axes.barh(where, values, height=0.9 * height, color=colour, label=each.label)
        for y, value in zip(where, values, strict=True):
            axes.text(value, y, f" {_short(value / 1000)}", va="center", color=theme.ink, size=9)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * math.sqrt(high / low) ** 0.4)
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("milliseconds, median; each line is ten times the one before it")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _short(seconds: float) -> str:
    from benchmarks.tables import seconds_text

    return seconds_text(seconds)
