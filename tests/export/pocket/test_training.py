import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.pocket.settings import profile
from export.pocket.training import Course, Trainer, cosine

SETTINGS = replace(profile("smoke"), checkpoint_seconds=0.0)


def trainer(folder, *, steps=8, kill_at=None, settings=SETTINGS, bad_at=None):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))

    def loss(step):
        if step == kill_at:
            raise KeyboardInterrupt
        random = torch.Generator().manual_seed(step)
        x = torch.randn(4, 5, generator=random)
        value = (net(x) - x[:, :2]).square().mean()
        return value * float("nan") if step == bad_at else value

    course = Course(
        name="net",
        steps=steps,
        loss=loss,
        learning_rate=lambda step: cosine(step, steps, warmup=2, peak=1e-2),
        samples=lambda _: 4,
        ema=0.9,
    )
    return Trainer(net, course, folder, settings)


def weights(run):
    return {name: p.detach().clone() for name, p in run.averaged().named_parameters()}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    whole = trainer(tmp_path / "whole")
    list(whole.run(9))
    for kill_at in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            list(trainer(tmp_path / "pieces", kill_at=kill_at).run(9))
    last = trainer(tmp_path / "pieces")
    assert not last.done
    list(last.run(9))
    assert last.done
    expected, got = weights(whole), weights(last)
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    rows = [json.loads(s) for s in (tmp_path / "pieces/net.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == 8


def test_it_learns(tmp_path):
    run = list(trainer(tmp_path, steps=300).run(9))
    assert run[-1].step == 300
    assert run[-1].loss < 0.3 * run[0].loss
    assert "step 300/300" in run[-1].line("net")


def test_minutes_end_a_piece(tmp_path):
    run = trainer(tmp_path, steps=10**6)
    assert list(run.run(0.0)) == []
    assert not run.done


def test_another_recipes_checkpoint_is_refused(tmp_path):
    list(trainer(tmp_path).run(9))
    with pytest.raises(ExportError, match="other settings"):
        trainer(tmp_path, settings=replace(SETTINGS, seed=5))


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(tmp_path):
    run = trainer(tmp_path, bad_at=4)
    with pytest.raises(ExportError, match="step 4"):
        list(run.run(9))
    again = trainer(tmp_path)
    assert all(torch.isfinite(p).all() for p in weights(again).values())


def test_the_learning_rate_rises_then_falls():
    rates = [cosine(step, 100, warmup=10, peak=1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
