"""What records say of their pictures, in words."""

import pytest

from safelight.records import peaks_in_mib

MIB = 1 << 20


@pytest.mark.parametrize(
    ("of", "words"),
    [("rss", " of the process"), ("vram", " of the card"), ("torch", " of torch"), ("later", "")],
)
def test_peaks_are_told_in_mebibytes_with_what_they_count(of, words):
    peaks = {"of": of, "load": 2048 * MIB, "text": MIB + 1, "denoise": 0, "decode": 3 * MIB}
    assert peaks_in_mib({"peak_memory": peaks}) == {
        "load": f"2048 MiB{words}",
        "text": f"1 MiB{words}",
        "decode": f"3 MiB{words}",
    }


@pytest.mark.parametrize("metadata", [{}, {"peak_memory": {}}, {"peak_memory": [1, 2]}], ids=str)
def test_a_record_without_them_has_none(metadata):
    assert peaks_in_mib(metadata) == {}
