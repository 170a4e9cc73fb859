"""Results as lines of text for a terminal."""

from collections.abc import Iterable, Iterator

from benchmarks.comparison import Comparison
from benchmarks.document import Configuration, Figure, Result

__all__ = ["amount", "comparison_lines", "facts_of", "seconds_text", "summary"]

GIB, MIB = 1 << 30, 1 << 20


def seconds_text(seconds: float) -> str:
    """Give a duration with three digits that count: 1.23 s, 45.6 ms, 789 µs."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1 or unit == "µs":
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return ""


def amount(size: int | None) -> str:
    """Give bytes in MiB or GiB; - where they are not known."""
    if size is None:
        return "-"
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def summary(result: Result) -> Iterator[str]:
    """Yield what a person wants to know of one result: stages, memory, quality, what disturbed."""
    row = result.scenario
    weights = ", random weights" if row.random_weights else ""
    yield f"{row.name} version {row.version}{weights}, {result.date}, machine {result.machine.id}"
    for each in result.configurations:
        yield ""
        yield each.name + (f" ({each.note})" if each.note else "")
        width = max(map(len, each.stages), default=0)
        for name, figure in each.stages.items():
            yield f"  {name:{width}}  {_figure(figure)}"
        for fact in facts_of(each):
            yield f"  {fact}"
    for name, reason in result.skipped.items():
        yield f"left out: {name}: {reason}"
    for warning in result.warnings:
        yield f"warning: {warning}"


def facts_of(each: Configuration) -> Iterator[str]:
    """Yield rate, memory, energy and quality of a configuration, as far as they are known."""
    if each.pictures_an_hour is not None:
        yield f"{each.pictures_an_hour:,.0f} pictures an hour"
    if each.peak_memory is not None:
        yield f"peak memory {amount(each.peak_memory)}"
    if each.peak_gpu_memory is not None:
        yield f"GPU memory {amount(each.peak_gpu_memory)}"
    if each.joules_a_picture is not None:
        yield f"{each.joules_a_picture:.1f} J a picture"
    if each.cache_bytes:
        yield f"cache {amount(each.cache_bytes)}"
    if (quality := each.quality) is not None:
        word = "passed" if quality.passed else "FAILED"
        yield (
            f"quality {word}: {quality.psnr:.1f} dB, SSIM {quality.ssim:.4f}"
            f" (at least {quality.least_psnr:.0f} dB, {quality.least_ssim:g})"
            f" against {quality.reference}"
        )


def comparison_lines(found: Comparison) -> tuple[Iterable[str], Iterable[Iterable[str]]]:
    """Give heading and rows of a comparison."""
    heading = ("configuration", "stage", "before", "after", "change", "noise", "verdict")
    rows = (
        (
            row.configuration,
            row.stage,
            seconds_text(row.before),
            seconds_text(row.after),
            f"{row.change:+.1%}",
            f"{row.noise:.1%}",
            row.verdict,
        )
        for row in found.rows
    )
    return heading, rows


def _figure(figure: Figure) -> str:
    parts = [f"{seconds_text(figure.p50):>9}"]
    count = len(figure.samples)
    if count > 1:
        parts.append(f"p90 {seconds_text(figure.p90)}, p99 {seconds_text(figure.p99)}")
        noisy = "  noisy" if figure.noisy else ""
        parts.append(f"±{figure.variation:.1%} of {count}{noisy}")
    if figure.outliers:
        parts.append(f"{figure.outliers} outliers")
    if figure.bytes:
        parts.append(f"{figure.bytes / figure.p50 / 1e6:,.0f} MB/s")
    return "  ".join(parts)
