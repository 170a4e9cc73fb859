"""The report of an acceptance run in Markdown: a table a network, and what was absent and why."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["PUBLISHED", "markdown"]

# What others published, to be held beside: steps a second with guidance, one picture.
PUBLISHED = {
    "sd15 512x512, H100 (stable-fast, 2024)": 104.6,
    "sdxl 1024x1024, H100 (stable-fast, 2024)": 21.6,
}


def markdown(document: Mapping[str, Any]) -> str:
    """Write the report of the JSON document."""
    machine = document["machine"]
    what = (
        "Network with guidance (two texts a picture), random weights but for pocket. Milliseconds"
        " of all steps, median and 90th percentile; PSNR of one evaluation against fp32 on the"
        " processor. Build: what is compiled, measured or captured; TensorRT's is kept for the next"
        " time."
    )
    where = (
        f"{document['date']}, {document['card']}, driver {document['driver']},"
        f" {machine['system']}, Python {machine['python']}. {document['seconds']} s in all."
    )
    lines = [
        "# Acceptance on a card",
        "",
        where,
        "",
        what,
    ]
    for key, rows in document["results"].items():
        lines += ["", f"## {key}", "", *_table(rows)]
    lines += ["", "## Published", ""]
    lines += [f"- {name}: {value} steps a second" for name, value in PUBLISHED.items()]
    if document["faults"]:
        lines += ["", "## Faults", "", *(f"- {fault}" for fault in document["faults"])]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    counts = sorted({int(count) for row in rows.values() for count in row.get("times", {})})
    head = [f"{count} step{'s' * (count > 1)}" for count in counts]
    last = ("steps/s", "PSNR dB", "build s", "load s", "MiB", "includes")
    columns = ["row", "precision", *head, *last]
    lines = [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
    ]
    for name, row in rows.items():
        if "absent" in row:
            lines.append(f"| {name} | absent: {row['absent']} |")
            continue
        times = row["times"]
        cells = [
            f"{times[str(count)]['p50_ms']} ({times[str(count)]['p90_ms']})"
            if str(count) in times
            else ""
            for count in counts
        ]
        rate = times[max(times, key=int)]["steps_a_second"]
        lines.append(
            f"| {name} | {row['precision']} | {' | '.join(cells)} | {rate} | {row['psnr']} |"
            f" {row['build_s']} | {row['load_s']} | {row['memory_mib'] or ''} |"
            f" {row['includes']} |"
        )
    return lines
