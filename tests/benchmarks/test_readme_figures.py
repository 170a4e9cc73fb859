"""The README says what the committed results say; a changed result has to change it."""

from pathlib import Path

from benchmarks.document import text_of
from benchmarks.readme import BEGIN, END, README, tables, with_tables
from tests.benchmarks.made_results import quality, result


def test_the_readme_has_the_committed_figures():
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert with_tables(text, tables()) == text, "run python -m benchmarks.readme"


def test_every_scripts_figure_is_there():
    made = tables()
    for name in ("pocket.json", "sd15.json", "sealing.json", "vault-scale.json", "startup.json"):
        assert name in made
    assert "safelight openvino" in made


def test_a_result_of_bench_becomes_rows(tmp_path: Path):
    good = result({"picture": [0.2, 0.21], "step": [0.01]}, like=quality(49.7, passed=True))
    bad = result({"picture": [0.1, 0.1]}, name="fast", like=quality(9.0, passed=False))
    both = good.model_copy(
        update={
            "configurations": (*good.configurations, *bad.configurations),
            "skipped": {"a peer": "it does not install"},
        }
    )
    (tmp_path / "bench-x.json").write_text(text_of(both))
    made = tables(tmp_path)
    row = "| pocket-128 | **safelight** openvino bf16 batch 1 | 205 ms ±3% | 10.0 ms | 300 MiB |"
    assert f"{row} 50 dB | bench-x.json |" in made
    assert "**safelight** fast | 100 ms ±0% | - | 300 MiB | failed, 9 dB |" in made
    assert "In bench-x.json, left out: a peer: it does not install." in made
