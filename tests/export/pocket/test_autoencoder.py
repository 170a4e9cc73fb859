import json

import numpy as np
import pytest
import torch

from export.pocket import autoencoder
from export.pocket.autoencoder import (
    distortion,
    encode_mean,
    fold_scale,
    load_autoencoder,
    new_autoencoder,
    to_signal,
)

ALL = (1.0, 1.0, 0.4)


def test_beyond_white_costs_nothing_and_below_it_does():
    white = torch.ones(1, 3, 8, 8)
    assert distortion(white * 1.3, white, weights=ALL, margin=0.0) == 0
    assert distortion(white * 0.9, white, weights=ALL, margin=0.0) > 0.1
    assert distortion(-white * 1.3, -white, weights=ALL, margin=0.0) == 0


def test_the_margin_asks_for_more_than_white():
    white = torch.ones(1, 3, 8, 8)
    assert distortion(white, white, weights=ALL, margin=0.02) == pytest.approx(0.0204, abs=1e-4)
    assert distortion(white * 1.05, white, weights=ALL, margin=0.02) == 0


def test_inside_the_range_it_is_the_plain_sum():
    x, y = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    assert distortion(y, x, weights=ALL, margin=0.0) == pytest.approx(0.75)
    y = y * torch.arange(8) / 8
    only_edges = distortion(y, x, weights=(0.0, 0.0, 1.0), margin=0.0)
    assert only_edges == pytest.approx(0.0625)


def test_folding_the_scale_changes_latents_and_no_picture(settings):
    vae = new_autoencoder(settings).eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    centre, deviation = torch.tensor([0.5, -1, 2, 0]), torch.tensor([2.0, 0.5, 3, 1])
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        picture = vae.decode(posterior.mean).sample
        expected = (posterior.mean - centre[:, None, None]) / deviation[:, None, None]
        fold_scale(vae, centre, deviation)
        after = vae.encode(x).latent_dist
        torch.testing.assert_close(after.mean, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(vae.decode(after.mean).sample, picture, atol=1e-5, rtol=1e-4)
        spread = posterior.std / deviation[:, None, None]
        torch.testing.assert_close(after.std, spread, atol=1e-6, rtol=1e-4)


def test_the_stage_ends_in_a_folder_whose_white_is_zero(work, settings):
    said = []
    assert autoencoder.build(work, settings, 9.0, said.append)
    assert said[-1] == "vae: finished"
    vae = load_autoencoder(work / "vae")
    assert vae.config["scaling_factor"] == 1.0
    white = np.full((1, 128, 128, 3), 255, np.uint8)
    with torch.no_grad():
        latents = encode_mean(vae, to_signal(white))
    # Zero padding makes the borders differ; the mean over the picture is what was centred.
    assert latents.mean(dim=(2, 3)).abs().max() < 1e-3
    rows = [json.loads(line) for line in (work / "vae-state.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 5


def test_batches_repeat_and_differ_by_step(shelf, settings):
    vae = new_autoencoder(settings)
    one, two = (autoencoder._Lessons(vae, shelf, settings) for _ in range(2))
    assert torch.equal(one.batch(0), two.batch(0))
    assert not torch.equal(one.batch(0), one.batch(1))
    assert one.batch(0).shape == (2, 3, 32, 32)
    assert one.batch(2).shape == (2, 3, 128, 128)
    assert [one.part(step) for step in range(5)] == ["crop", "crop", "whole", "decoder", "decoder"]


def test_the_last_part_trains_the_decoder_alone(shelf, settings):
    vae = new_autoencoder(settings)
    lessons = autoencoder._Lessons(vae, shelf, settings)
    lessons.loss(4).backward()
    assert all(p.grad is None for p in vae.encoder.parameters())
    assert all(p.grad is not None for p in vae.decoder.parameters())
    lessons.loss(0).backward()
    assert all(p.grad is not None for p in vae.encoder.parameters())
