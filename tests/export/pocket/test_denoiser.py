import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from export.pocket import autoencoder, denoiser, latents
from export.pocket.denoiser import Lessons, alpha_bars, new_network
from export.pocket.latents import open_latents, plan_scenes


@pytest.fixture(scope="module")
def encoded(work, settings):
    if not (work / "vae").exists():
        autoencoder.build(work, settings, 9.0, lambda _: None)
    latents.build(work, settings, 9.0, lambda _: None)
    return open_latents(work)


@pytest.fixture(scope="module")
def lessons(encoded, shelf, settings):
    return Lessons(new_network(settings), shelf, encoded, settings)


def test_the_schedule_is_stable_diffusions():
    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(alpha_bars(), theirs.alphas_cumprod, atol=1e-5, rtol=1e-4)


def test_each_picture_is_encoded_once_as_it_is(shelf, settings, encoded, work):
    scenes = plan_scenes(shelf, settings)
    assert len(scenes) == len(encoded.row) == 4 * (2 + 1) + 4 * (1 + 1) + 8
    first = encoded.of_row(0, coloured=False)[0]
    x = autoencoder.to_signal(latents._draw(scenes[first], shelf)[None])
    with torch.no_grad():
        expected = autoencoder.encode_mean(autoencoder.load_autoencoder(work / "vae"), x)[0]
    np.testing.assert_allclose(encoded.latents[first], expected, atol=2e-2, rtol=2e-3)
    assert (latents._draw(scenes[first], shelf)[0, 0] == 255).all()


def test_nothing_held_out_is_drawn_or_said(lessons, shelf, encoded):
    allowed = set(shelf.where("concept", "recoloured"))
    assert set(encoded.row.tolist()) <= allowed
    said = [c for step in range(60) for c in lessons.draw(step)[1]]
    assert not any("purple butterfly" in c or "purple moth" in c for c in said)
    assert said.count("") == pytest.approx(48, abs=25)


def test_caption_and_latents_belong_together(lessons, shelf, encoded):
    names = shelf.vocabulary.names
    for step in range(40):
        for index, caption in zip(*lessons.draw(step), strict=True):
            picture = shelf.rows[encoded.row[index]]
            if picture.colour and caption and encoded.second[index] < 0:
                assert picture.colour in caption
            if encoded.background[index] >= 0 and caption:
                assert " on " in caption or "background" in caption
                assert "white" not in caption
            if encoded.second[index] >= 0 and caption:
                right = shelf.rows[encoded.second[index]].concept
                assert any(name in caption for name in names(right))


def test_a_step_repeats_and_another_differs(lessons):
    with torch.no_grad():
        a, b, c = (float(lessons.loss(step)) for step in (0, 0, 1))
    assert a == b
    assert a != c


def test_a_perfect_prediction_costs_nothing(lessons, monkeypatch):
    """The target is v = sqrt(bar) noise - sqrt(1 - bar) x, made here from what the net gets."""
    given = {}

    class Oracle(torch.nn.Module):
        def forward(self, x, timesteps, token_ids):
            given.update(x=x, timesteps=timesteps, ids=token_ids)
            bar = alpha_bars()[timesteps][:, None, None, None]
            clean = torch.from_numpy(lessons._set.latents[lessons.draw(3)[0]].astype(np.float32))
            noise = (x - bar.sqrt() * clean) / (1 - bar).sqrt()
            return bar.sqrt() * noise - (1 - bar).sqrt() * clean

    monkeypatch.setattr(lessons, "_network", Oracle())
    assert float(lessons.loss(3)) < 1e-6
    strata = sorted(int(t) * 8 // 1000 for t in given["timesteps"])
    assert strata == list(range(8))


def test_both_networks_learn(encoded, shelf, settings):
    network = new_network(settings)
    Lessons(network, shelf, encoded, settings).loss(0).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == []


def test_the_stage_runs_to_its_end(encoded, work, settings):
    said = []
    assert denoiser.build(work, settings, 9.0, said.append)
    assert said[-1] == "unet: finished"
