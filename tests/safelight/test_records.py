"""What records say of their pictures, in words."""

import json
import math

import pytest

from engine.request import MAX_PROMPT
from safelight.orders import field_types
from safelight.records import LONGEST, peaks_in_mib, refused_metadata

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


# -- lines that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
def test_a_number_that_is_not_finite_is_kept_in_words(number):
    found = refused_metadata({"prompt": "cat", "guidance_scale": number}, "pocket", "no number")
    assert found["settings"] == {"guidance_scale": str(number)}
    json.dumps(found, allow_nan=False)


def test_half_of_a_character_is_kept_in_words():
    found = refused_metadata({"prompt": "a \ud83d", "preset": "\udcff"}, "pocket", "no \udcff")
    assert found["prompt"] == "a \\ud83d"
    assert found["settings"] == {"preset": "\\udcff"}
    assert found["outcome"] == "refused: no \\udcff"


def test_what_is_too_long_is_cut_and_the_outcome_says_so():
    texts = {name for name, types in field_types().items() if str in types}
    order = dict.fromkeys(texts, "\0" * 2_000_000)  # six bytes each in JSON
    found = refused_metadata(order, "pocket", "unknown sampler '" + "\0" * 2_000_000)
    assert len(json.dumps(found)) < 1 << 20  # what a record can hold
    assert (len(found["prompt"]), len(found["negative_prompt"])) == (MAX_PROMPT, MAX_PROMPT)
    assert {len(value) for value in found["settings"].values()} == {LONGEST}
    assert found["outcome"].count("is cut, it had 2000000 characters") == len(texts)


def test_what_a_record_can_hold_is_kept_as_it_is():
    order = {"prompt": "x" * MAX_PROMPT, "negative_prompt": "día", "steps": 0, "eta": 1.5}
    found = refused_metadata(order, "pocket", "steps is 0")
    assert (found["prompt"], found["negative_prompt"]) == (order["prompt"], "día")
    assert found["settings"] == {"steps": 0, "eta": 1.5}
    assert found["outcome"] == "refused: steps is 0"
