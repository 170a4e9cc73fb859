"""Decoding and encoding in tiles against the whole: on functions whose answer is known, on pocket
with its own pictures, and through the pipeline.
"""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, RequestError, choose
from engine.decoders import VAE, find_decoder
from engine.encoding import to_sample
from engine.pixels import to_pixels
from engine.stages import Stages
from engine.tiles import blend
from engine.tiling import WHOLE_LIMIT, decode_tiled, encode_tiled, is_tiled, tile_count, tile_grid
from tests.engine.companion_bundle import with_companions
from tests.engine.test_pipeline import CountingBackend, draw, request

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def enlarged(x):
    """Stand for a decoder that looks nowhere else: each latent is 8 x 8 pixels."""
    return x[:, :3].repeat(8, axis=2).repeat(8, axis=3)


def normalised(x):
    """Stand for a decoder whose one layer normalises what it sees, as a VAE's do."""
    seen = x[:, :3]
    mean, spread = seen.mean((2, 3), keepdims=True), seen.std((2, 3), keepdims=True)
    return enlarged((seen - mean) / spread)


def noise(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sloping(height, width):
    """Give latents whose brightness grows from corner to corner, so that no two tiles are alike."""
    slope = np.linspace(-2, 2, height)[:, None] + np.linspace(-1, 1, width)
    return (slope + 0.5 * noise(1, 4, height, width)).astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (8, 100), (65, 64), (129, 200), (256, 70)])
def test_what_looks_nowhere_else_decodes_as_the_whole(size):
    latents = noise(1, 4, *size)
    # Tiles agree where they overlap, so gains of 1 are the best there are; what fp64 and fp32 leave
    # of them is a millionth.
    assert np.abs(decode_tiled(latents, enlarged) - enlarged(latents)).max() < 1e-5


def test_encoding_cuts_pixels_and_joins_latents():
    sample = noise(1, 3, 8 * 70, 8 * 130)

    def shrunk(x):
        means = x.reshape(1, 3, x.shape[2] // 8, 8, x.shape[3] // 8, 8).mean((3, 5))
        return np.concatenate((means, means**2), axis=1)

    assert np.abs(encode_tiled(sample, shrunk) - shrunk(sample)).max() < 1e-5


def test_every_tile_has_the_one_shape():
    shapes = set()

    def look(x):
        shapes.add(x.shape)
        return enlarged(x)

    decode_tiled(noise(1, 4, 90, 200), look)
    assert shapes == {(1, 4, 64, 64)}
    shapes.clear()
    decode_tiled(noise(1, 4, 40, 200), look)
    assert shapes == {(1, 4, 40, 64)}


def test_a_buffer_that_is_used_again_does_not_spoil_the_tile_before():
    buffer = np.empty((1, 3, 512, 512), np.float32)

    def reuse(x):
        np.copyto(buffer, enlarged(x))
        return buffer

    latents = noise(1, 4, 64, 150)
    assert np.abs(decode_tiled(latents, reuse) - enlarged(latents)).max() < 1e-5


def plain_tiles(latents, decode):
    """Fade tiles together as they come, without evening them out."""
    grid = tile_grid(*latents.shape[2:])
    bands = blend(grid, 8, lambda y, x: decode(latents[:, :, y : y + 64, x : x + 64])[0])
    return np.concatenate(list(bands), axis=1)[None]


def steps_at(picture, whole):
    """Give how much the error changes from tile to tile: its spread over means of 64 pixels."""
    error = (picture - whole)[0, :, : picture.shape[2] // 64 * 64, : picture.shape[3] // 64 * 64]
    channels, height, width = error.shape
    means = error.reshape(channels, height // 64, 64, width // 64, 64).mean((2, 4))
    return means.std(axis=(1, 2)).max()


def test_tiles_that_were_normalised_apart_are_evened_out():
    latents = sloping(128, 192)
    whole = normalised(latents)
    plain, even = plain_tiles(latents, normalised), decode_tiled(latents, normalised)
    assert steps_at(plain, whole) > 0.3  # each tile has a mean of 0: the slope is gone
    # What a tile's own deviation hides is not all to be had back from the overlaps; half of it is.
    assert steps_at(even, whole) < 0.6 * steps_at(plain, whole)


def test_a_tile_that_overflows_is_seen_and_spoils_no_other():
    def overflow(x):
        decoded = enlarged(x)
        decoded[0, 0, 0, 0] = np.inf if x[0, 0, 0, 0] == marked else 0.0
        return decoded

    latents = noise(1, 4, 64, 150)
    marked = latents[0, 0, 0, 0]
    found = decode_tiled(latents, overflow)
    assert np.isinf(found[0, 0, 0, 0])
    assert np.isfinite(found[..., 600:]).all()


def test_progress_goes_up_to_one_and_can_end_the_work():
    told = []
    decode_tiled(noise(1, 4, 64, 150), enlarged, told.append)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (3, 1.0)

    def stop(_fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_tiled(noise(1, 4, 64, 150), enlarged, stop)


def test_a_tile_of_another_shape_is_refused():
    with pytest.raises(BundleError, match="for a tile of"):
        decode_tiled(noise(1, 4, 64, 150), lambda x: enlarged(x)[:, :, 1:])


def test_auto_tiles_what_is_larger_than_the_limit():
    assert not is_tiled("auto", 1024, 1536)
    assert WHOLE_LIMIT == 1024 * 1536
    assert is_tiled("auto", 1032, 1536)
    assert is_tiled("on", 64, 64)
    assert not is_tiled("off", 8192, 8192)
    assert [tile_count("auto", side, side) for side in (512, 2048)] == [1, 25]
    assert tile_count("on", 64, 64) == 1  # all of it in one tile


# -- pocket ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def stages(bundle):
    backend = choose("onnxruntime", "fp32").backend
    return Stages(bundle, backend, bundle.tokenizers(), {})


@pytest.fixture(scope="module")
def scene(bundle, stages):
    """Give uint8[128, 1024, 3]: an object that pocket drew, over and over, from light to dark."""
    pipeline = Pipeline(bundle, choose("onnxruntime", "fp32").backend)
    made = bundle.request(prompt="red apple", seed=5, steps=6)
    (picture,) = [each.pixels for each in pipeline.generate(made) if isinstance(each, Picture)]
    light = np.linspace(1.0, 0.2, 1024)[:, None]
    return (np.tile(picture, (1, 8, 1)) * light).astype(np.uint8)


def test_pocket_s_tiles_are_nearer_to_the_whole_than_plain_ones(bundle, stages, scene):
    decoder = find_decoder(VAE, bundle.manifest, bundle.path)
    latents = stages.encode_sample(to_sample(scene))
    whole = to_pixels(stages.decode(decoder, latents))
    even = to_pixels(stages.decode(decoder, latents, tiled=True))
    scaled = latents / np.float32(decoder.scaling_factor)
    plain = to_pixels(plain_tiles(scaled, lambda x: stages.decode(decoder, x)))
    # 35.9 and 31.6 dB; a gain of 3 is what photographs have at the least (engine/DESIGN.md).
    assert psnr(even, whole) > psnr(plain, whole) + 3.0
    again = stages.encode_sample(to_sample(scene), tiled=True)
    # 4.5 % of what latents vary by; tiles that lie a latent off, or in disorder, give 30 and more.
    assert np.sqrt(np.mean((again - latents) ** 2)) < 0.1 * latents.std()


# -- the pipeline ------------------------------------------------------------------------------


def test_the_pipeline_decodes_in_tiles_where_it_is_asked_to(bundle):
    made = {}
    for choice in ("off", "on"):
        backend = CountingBackend(FakeBackend())
        asked = request(bundle, width=1024, height=520, vae_tiling=choice, steps=2)
        ((made[choice],), _) = draw(Pipeline(bundle, backend), asked)
        assert backend.runs["vae_decoder"] == made[choice].tiles
    assert (made["off"].tiles, made["on"].tiles) == (1, 6)
    # The fake's decoder looks nowhere else; a level is what rounding may tip over.
    levels = [each.pixels.astype(int) for each in made.values()]
    assert np.abs(levels[0] - levels[1]).max() <= 1
    assert made["on"].request.vae_tiling == "on"


def test_tiles_are_counted_of_what_the_last_pass_leaves(bundle):
    backend = CountingBackend(FakeBackend())
    asked = request(bundle, width=640, height=640, hires_scale=2.0, steps=2)
    ((picture,), _) = draw(Pipeline(bundle, backend), asked)
    assert backend.runs["vae_decoder"] == picture.tiles == 9  # the first pass is one tile alone


def test_a_small_picture_is_one_tile(bundle):
    ((picture,), _) = draw(Pipeline(bundle, FakeBackend()), request(bundle, vae_tiling="on"))
    assert picture.tiles == 1


def test_cancelling_between_tiles_ends_the_events(bundle):
    backend = CountingBackend(FakeBackend())
    asked = request(bundle, width=1024, height=520, vae_tiling="on", steps=2)
    events = Pipeline(bundle, backend).generate(
        asked, cancelled=lambda: backend.runs["vae_decoder"] >= 2
    )
    assert not [each for each in events if isinstance(each, Picture)]
    assert backend.runs["vae_decoder"] == 2


def test_a_tile_that_overflows_is_decoded_again_in_fp32(bundle):
    backend = FakeBackend(precision="bf16", nan_in_picture=True)
    asked = request(bundle, width=1024, vae_tiling="on", steps=2)
    ((picture,), _) = draw(Pipeline(bundle, backend), asked)
    assert picture.repairs == ("decode in fp32",)
    assert picture.pixels.std() > 1.0


def test_the_tiny_decoder_and_previews_by_it_take_tiles_too(bundle, tmp_path):
    companions = with_companions(bundle, tmp_path)
    backend = CountingBackend(FakeBackend())
    asked = request(companions, width=1024, vae_tiling="on", steps=2, decoder="tiny")
    looks = []
    pipeline = Pipeline(companions, backend, check_safety=False)
    for event in pipeline.generate(asked, previews="tiny"):
        if isinstance(event, Picture):
            assert event.tiles == 3
        else:
            looks.append(event.preview().shape)
    assert looks == [(128, 1024, 3)] * 2
    assert (
        len({shapes["latent_sample"] for name, shapes, _ in backend.loads if "tiny" in name}) == 1
    )


def test_an_unknown_tiling_is_refused(bundle):
    with pytest.raises(RequestError, match="unknown VAE tiling 'of'; did you mean 'off'"):
        request(bundle, vae_tiling="of")
