"""Reports hold every figure, need nothing else, and read in both themes."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from base64 import b64decode

import pytest

from benchmarks.page import page
from benchmarks.plots import DARK, LIGHT, entries_of, plots
from benchmarks.report import csv_rows, json_lines, markdown
from benchmarks.tables import amount, seconds_text, summary
from tests.benchmarks.made_results import machine, quality, result, samples


def drawn(name="openvino bf16 batch 1", middle=0.1, **more):
    stages = {
        "load, cold": [2.0],
        "text": samples(0.002, 0.1),
        "step": samples(middle, 0.05, 200),
        "decode": samples(0.01, 0.1),
        "seal": samples(0.004, 0.1),
        "picture": samples(20 * middle + 0.02, 0.02, 10),
    }
    return result(stages, name=name, **more)


def results():
    far = machine("fedcba9876543210", "A|B <b>Processor")
    bad = quality(12.0, passed=False)
    return [
        drawn(like=quality(49.7, passed=True)),
        drawn(middle=0.03, like=bad, machine=far, warnings=("it was <hot>",)),
        result({"open": [0.001], "search": [0.4]}, scenario="vault-1000", name="vault of one"),
    ]


def test_markdown_has_what_a_reader_asks_for():
    text = markdown(results())
    assert "# pocket-128, version 1" in text
    assert "# vault-1000, version 1" in text
    assert "| 49.7 dB, SSIM 0.9900 |" in text
    assert "**failed** 12.0 dB" in text
    assert "- it was <hot>" in text
    assert "A\\|B <b>Processor" in text  # a table's own sign does not break it
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in rows} <= {4, 3, 7, 8}


def test_the_page_is_one_file_that_asks_for_nothing_and_escapes():
    text = page(results())
    assert not re.search(r"""(?:src|href|srcset)=["'](?!data:)""", text)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "A|B &lt;b&gt;Processor" in text
    assert "it was &lt;hot&gt;" in text
    found = re.findall(r"base64,([A-Za-z0-9+/=]+)", text)
    assert len(found) == 2 * 5  # four plots of pictures, one of the vault, light and dark
    for each in found:
        assert ET.fromstring(b64decode(each)).tag.endswith("svg")  # noqa: S314 - our own
    assert text.count("alt=") == 5


def test_plots_are_the_same_every_time_and_differ_by_theme():
    for plot in plots(entries_of(results()[:2])):
        light = plot.draw(LIGHT, "svg")
        assert light == plot.draw(LIGHT, "svg")
        assert light != plot.draw(DARK, "svg")
        assert LIGHT.ink.encode() in light
        assert DARK.ink.encode() in plot.draw(DARK, "svg")
        assert plot.draw(LIGHT, "png").startswith(b"\x89PNG")


def test_each_plot_comes_only_when_there_is_something_to_see():
    titles = [plot.title for plot in plots(entries_of([drawn()]))]
    assert titles == ["Where a picture's time goes", "Step times"]
    batches = drawn()
    (one,) = batches.configurations
    four = one.model_copy(update={"name": "openvino bf16 batch 4", "batch": 4})
    both = batches.model_copy(update={"configurations": (one, four)})
    assert "Throughput by batch" in [plot.title for plot in plots(entries_of([both]))]


def test_csv_and_json_lines_hold_the_same_rows():
    rows = list(csv.DictReader(io.StringIO(csv_rows(results()))))
    lines = [json.loads(line) for line in json_lines(results()).splitlines()]
    assert len(rows) == len(lines) == 2 * 6 + 2
    assert [row["stage"] for row in rows] == [line["stage"] for line in lines]
    assert float(rows[2]["p50"]) == lines[2]["p50"] == pytest.approx(0.1, rel=0.05)
    assert lines[6]["passed"] is False


def test_labels_name_machines_only_where_they_differ():
    one, two = drawn(), drawn(machine=machine("fedcba9876543210", "Other"))
    assert [e.label for e in entries_of([one])] == ["openvino bf16 batch 1"]
    assert [e.label for e in entries_of([one, two])] == [
        "openvino bf16 batch 1 · A Processor 0123",
        "openvino bf16 batch 1 · Other fedc",
    ]
    assert entries_of([one, one])[1].label == "openvino bf16 batch 1 (2)"


def test_the_summary_of_a_run():
    lines = list(summary(results()[1]))
    assert any("FAILED: 12.0 dB" in line for line in lines)
    assert lines[-1] == "warning: it was <hot>"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234, "1.23 s"),
        (75.6, "75.6 s"),
        (0.0456, "45.6 ms"),
        (0.000789, "789 µs"),
        (0, "0.00 µs"),
    ],
)
def test_durations(seconds, text):
    assert seconds_text(seconds) == text


def test_amounts():
    assert (amount(None), amount(3 << 20), amount(3 << 30)) == ("-", "3 MiB", "3.00 GiB")
