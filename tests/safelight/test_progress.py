from dataclasses import replace

import numpy as np
import pytest

from engine.events import Step
from safelight.progress import PictureProgress, StageProgress


def step(index, count=4):
    return Step(
        picture=0, index=index, count=count, seconds=0.1, preview=lambda: np.zeros((1, 1, 3), "u1")
    )


def test_without_a_terminal_the_end_is_always_said_and_the_middle_seldom(capsys):
    with PictureProgress(2) as progress:
        for _ in range(2):
            for index in range(4):
                progress.step(step(index))
            progress.picture()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert "100%" in lines[-1]
    assert "2 of 2 pictures" in lines[-1]
    assert len(lines) < 8


def test_several_pictures_in_hand_count_together_and_never_backwards(monkeypatch):
    shown = []
    monkeypatch.setattr(PictureProgress, "show", lambda self, done, text: shown.append(done))
    progress = PictureProgress(3)
    for index in range(2):
        for picture in (1, 0):  # the second one is ahead
            progress.step(replace(step(index, count=2), picture=picture))
    assert shown == pytest.approx([0.49, 0.98, 1.47, 1.96])
    progress.picture()
    progress.step(replace(step(0, count=2), picture=2))
    progress.picture()
    assert shown[4:] == pytest.approx([1.0, 2.47, 2.0])


def test_stages_are_named(capsys):
    with StageProgress() as progress:
        progress.stage("unet", 1.0)
    assert "unet" in capsys.readouterr().err
