"""Events carry what happened, and neither pixels nor prompts into a log line."""

import dataclasses

import numpy as np
import pytest

from engine.events import Picture, Seconds, Step
from engine.request import GenerationRequest

REQUEST = GenerationRequest(
    prompt="a canary",
    negative_prompt="a second canary",
    width=16,
    height=8,
    steps=1,
    sampler="euler",
    schedule="karras",
    guidance_scale=1.0,
    seed=0,
)


def picture() -> Picture:
    return Picture(
        pixels=np.full((8, 16, 3), 77, dtype=np.uint8),
        request=REQUEST,
        model="pocket",
        model_hash="00",
        backend="fake",
        device="CPU",
        precision="fp32",
        reason="given",
        seconds=Seconds(load=0.0, text=0.0, denoise=0.0, decode=0.0),
    )


def test_a_picture_shows_neither_pixels_nor_prompt():
    shown = repr(picture())
    assert "canary" not in shown
    assert "77" not in shown


def test_a_step_makes_its_preview_only_when_asked():
    calls = []
    step = Step(picture=0, index=0, count=1, seconds=0.1, preview=lambda: calls.append(1))
    assert "preview" not in repr(step)
    assert not calls
    step.preview()
    assert calls == [1]


def test_events_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        picture().model = "other"
