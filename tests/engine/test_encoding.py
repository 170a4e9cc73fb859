"""Pictures into latents, held against diffusers' AutoencoderKL with the bundle's own weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, choose
from engine.components import Components
from engine.decoders import VAE, find_decoder
from engine.encoding import encode, encode_sample, to_latents, to_sample
from engine.noise import noise_source
from engine.pixels import to_pixels
from engine.stages import Stages
from export import Ingredients, export_checkpoint
from export.architectures import TINY, write_random_checkpoint
from export.reference import load_torch_pipeline

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
FP32 = 1e-4  # of the largest latent: what the order of fp32's additions leaves


def noisy_picture(height, width, seed=1):
    """Give slow colours with noise over them, so that means and variances both vary."""
    draw = np.random.default_rng(seed)
    across = np.sin(np.arange(width) / 9.0)[None, :, None] * draw.uniform(20, 60, 3)
    down = np.cos(np.arange(height) / 7.0)[:, None, None] * draw.uniform(20, 60, 3)
    values = 128 + across + down + draw.normal(0, 12, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


@pytest.fixture(scope="module")
def pocket():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def backend():
    return choose("onnxruntime", "fp32").backend


def check(path, backend, height, width):
    """Compare mean, sample, and the noise that is left for what comes after."""
    bundle = Bundle.open(path, hash_cache=None)
    factor = bundle.manifest.scaling_factor
    vae = load_torch_pipeline(path).vae
    pixels = noisy_picture(height, width)
    given = VaeImageProcessor().preprocess(Image.fromarray(pixels))
    generator = torch.Generator("cpu").manual_seed(7)
    with torch.no_grad():
        posterior = vae.encode(given).latent_dist
        mean = (factor * posterior.mode()).numpy()
        sample = (factor * posterior.sample(generator)).numpy()
    after = torch.randn(sample.shape, generator=generator).numpy()

    session = Components(bundle, backend).encoder(height, width)
    noise = noise_source("torch", 7)
    bound = FP32 * np.abs(mean).max()
    assert np.abs(encode(pixels, session, factor) - mean).max() <= bound
    assert np.abs(encode(pixels, session, factor, noise=noise) - sample).max() <= bound
    assert np.abs(sample - mean).max() > 10 * bound  # else the sample shows nothing
    assert np.abs(noise.normal(after.shape) - after).max() < 1e-5


def test_pocket_encodes_as_diffusers_does(pocket, backend):
    check(pocket.path, backend, 72, 136)


@pytest.mark.slow
def test_random_weights_encode_as_diffusers_does(tmp_path, backend):
    write_random_checkpoint(tmp_path / "checkpoint", TINY, seed=3)
    export_checkpoint(
        Ingredients(source=tmp_path / "checkpoint"),
        tmp_path / "tiny",
        name="tiny",
        licence=None,
        progress=lambda *_: None,
    )
    check(tmp_path / "tiny", backend, 64, 96)


def test_the_sample_is_the_reference_s_bit_by_bit():
    pixels = noisy_picture(16, 24)
    expected = VaeImageProcessor().preprocess(Image.fromarray(pixels)).numpy()
    assert np.array_equal(to_sample(pixels), expected)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, None].repeat(3, axis=2)
    assert np.array_equal(to_pixels(to_sample(every)), every)


def test_a_picture_of_pocket_s_comes_back(pocket, backend):
    made = pocket.request(prompt="red apple", seed=5, steps=8)
    events = Pipeline(pocket, backend).generate(made)
    (picture,) = [each.pixels for each in events if isinstance(each, Picture)]
    stages = Stages(pocket, backend, pocket.tokenizers())
    decoder = find_decoder(VAE, pocket.manifest, pocket.path)
    session = stages.components.encoder(*picture.shape[:2])
    latents = encode(picture, session, decoder.scaling_factor)
    back = to_pixels(stages.decode(decoder, latents))
    # Pocket's autoencoder gives its own pictures back at 40 to 43 dB; one that was scaled or turned
    # on the way stays under 20.
    assert psnr(back, picture) > 36.0, psnr(back, picture)


def test_variances_are_cut_where_the_reference_cuts_them():
    parameters = np.zeros((1, 8, 1, 2), np.float32)
    parameters[:, 4:, :, 0], parameters[:, 4:, :, 1] = -100.0, 100.0
    (dark, bright) = to_latents(parameters, 1.0, noise=Ones())[0, 0, 0]
    assert dark == pytest.approx(np.exp(-15.0))
    assert bright == pytest.approx(np.exp(10.0))


class Ones:
    def normal(self, shape):
        return np.ones(shape, np.float32)


def test_latents_without_a_distribution_are_taken_as_they_are():
    latents = np.ones((1, 4, 2, 3), np.float32)
    assert (to_latents(latents, 0.5, noise=Ones()) == 0.5).all()


@pytest.mark.parametrize("shape", [(1, 5, 2, 2), (2, 8, 2, 2), (8, 2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(BundleError, match="the encoder gives"):
        to_latents(np.zeros(shape, np.float32), 1.0)


def test_the_shipped_fake_takes_its_own_colours_back(pocket):
    components = Components(pocket, FakeBackend())
    latents = np.random.default_rng(2).uniform(-0.3, 0.3, (1, 4, 2, 3)).astype(np.float32)
    decoded = components.decoder("vae_decoder", 16, 24).run({"latent_sample": latents})
    back = encode_sample(decoded, components.encoder(16, 24), 1.0)
    # Three colours do not tell four latents apart, but the colours must be the same again.
    again = components.decoder("vae_decoder", 16, 24).run({"latent_sample": back})
    assert np.abs(again - decoded).max() < 1e-6


def test_a_bundle_without_an_encoder_says_so(pocket, backend):
    parts = {k: v for k, v in pocket.manifest.components.items() if k != "vae_encoder"}
    plain = replace(pocket, manifest=replace(pocket.manifest, components=parts))
    with pytest.raises(BundleError, match="has no vae_encoder"):
        Components(plain, backend).encoder(64, 64)
