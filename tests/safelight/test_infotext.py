"""The parameters text: what real pictures hold is read, what is written reads back the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.infotext import read_infotext, split_infotext, write_infotext
from safelight.samplernames import (
    A1111_SAMPLERS,
    A1111_SCHEDULES,
    known_sampler,
    known_schedule,
)

REAL = """a lighthouse, (storm:1.2)
second line, Negative prompt: is said here
Negative prompt: blurry, low quality
second negative line
Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 3735928559, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.7, Clip skip: 2, \
ControlNet 0: "Module: canny, Model: control_v11p [d14c016b], Weight: 1", Hires upscale: 2, \
Lora hashes: "ink: 00aa, pen: 11bb", Version: v1.10.1"""


def test_a_text_of_the_web_interface_is_read():
    assert read_infotext(REAL) == {
        "prompt": "a lighthouse, (storm:1.2)\nsecond line, Negative prompt: is said here",
        "negative_prompt": "blurry, low quality\nsecond negative line",
        "model": "v1-5-pruned",
        "settings": {
            "steps": 25,
            "guidance_scale": 6.5,
            "seed": 3735928559,
            "clip_skip": 2,
            "strength": 0.7,
            "hires_scale": 2.0,
            "width": 512,
            "height": 768,
            "sampler": "dpmpp_2m",
            "schedule": "karras",
        },
    }
    fields = split_infotext(REAL)[2]
    assert fields["ControlNet 0"] == "Module: canny, Model: control_v11p [d14c016b], Weight: 1"
    assert fields["Lora hashes"] == "ink: 00aa, pen: 11bb"


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("", "", ""),
        ("just words", "just words", ""),
        ("note: this, and: that", "note: this, and: that", ""),
        ("Negative prompt: alone", "", "alone"),
        ("p\nNegative prompt: n", "p", "n"),
        ("p\nSteps: 1, Sampler: Euler, CFG scale: 7", "p", ""),
        ("Steps: 1, Sampler: Euler, CFG scale: 7", "", ""),
    ],
)
def test_what_is_left_out_is_empty(text, prompt, negative):
    found = split_infotext(text)
    assert found[:2] == (prompt, negative)


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"),
    max_size=80,
).map(lambda text: text.replace("Negative prompt:", "").strip())


@settings(max_examples=100, deadline=None)
@given(
    prompt=WORDS,
    negative=WORDS,
    model=WORDS,
    sampler=st.sampled_from(sorted(A1111_SAMPLERS)),
    schedule=st.sampled_from(sorted(A1111_SCHEDULES)),
    scale=st.integers(2, 400).map(lambda number: number / 4),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_written_reads_back(prompt, negative, model, sampler, schedule, scale, seed):
    metadata = {
        "prompt": prompt,
        "negative_prompt": negative,
        "model": model,
        "settings": {
            "width": 512,
            "height": 640,
            "steps": 30,
            "sampler": sampler,
            "schedule": schedule,
            "guidance_scale": scale,
            "seed": seed,
            "clip_skip": 2,
        },
    }
    assert read_infotext(write_infotext(metadata)) == metadata


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400) | st.text('Steps:,"\\ \n1x-/NegativeprompSz', max_size=400))
def test_any_text_is_read_as_something(text):
    found = read_infotext(text)
    assert isinstance(found["prompt"], str)
    assert all(isinstance(value, int | float | str) for value in found["settings"].values())


def test_a_long_hostile_line_takes_no_time_to_speak_of():
    for line in ("a " * 30_000, 'a: "' + "\\" * 60_000, "a:" * 30_000, "x" * 5_000_000):
        assert read_infotext(f"p\n{line}")["prompt"].startswith("p")
    assert (
        "seed" not in read_infotext(f"p\nSteps: 1, Seed: {'9' * 5000}, CFG scale: nan")["settings"]
    )


def test_sampler_names_of_other_programs():
    for ours, theirs in A1111_SAMPLERS.items():
        assert known_sampler(theirs) == (ours, "")
        assert known_sampler(ours) == (ours, "")
    for ours, theirs in A1111_SCHEDULES.items():
        assert known_schedule(theirs) == known_schedule(ours) == ours
    for theirs, found in {
        "Euler a": ("euler_a", ""),
        "k_euler_ancestral": ("euler_a", ""),
        "euler_ancestral": ("euler_a", ""),
        "DPM++ 2M SDE Karras": ("dpmpp_2m_sde", "karras"),
        "dpmpp_2m_k": ("dpmpp_2m", "karras"),
        "dpmpp_2m_sde_gpu": ("dpmpp_2m_sde", ""),
        "dpmpp_2s_ancestral": ("dpmpp_2s_a", ""),
        "Restart": ("Restart", ""),
        "": ("", ""),
    }.items():
        assert known_sampler(theirs) == found, theirs
