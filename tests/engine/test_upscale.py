"""Tiles against the whole picture: what the network looks at decides how much they may differ."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, NotFiniteError, Pipeline, RequestError
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.upscale import MAX_SIDE, Upscaler, read_scale
from safelight.upscalers import take_in_upscaler
from tests.engine.upscaler_graph import write_upscaler

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


def make(tmp_path, name="up", **graph):
    file = write_upscaler(tmp_path / f"{name}.onnx", **graph)
    return take_in_upscaler(file, tmp_path / "shelf" / name, OnnxRuntimeBackend(), lambda *_: None)


def picture(height, width, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def whole(bundle, pixels):
    """Enlarge in one piece, by the runtime itself."""
    session = onnxruntime.InferenceSession(
        bundle.model("upscaler"), providers=["CPUExecutionProvider"]
    )
    x = (pixels.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    return y[0].transpose(1, 2, 0) * 255


def error(bundle, pixels, **tiling):
    found = Upscaler(bundle, OnnxRuntimeBackend(), **tiling).upscale(pixels)
    wanted = whole(bundle, pixels)
    assert found.shape == wanted.shape
    return np.abs(found - wanted)


# Half of a level is what rounding to whole levels leaves; the rest is fp32's order of additions.
ROUNDED = 0.51


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_tiles_that_overlap_enough_are_the_whole_picture(tmp_path, scale):
    # Two pixels of reach; a quarter of the overlap of 16 is thrown away at each side.
    bundle = make(tmp_path, scale=scale)
    assert error(bundle, picture(104, 152), tile=64, overlap=16).max() <= ROUNDED


def test_the_last_tile_may_overlap_more_than_asked(tmp_path):
    bundle = make(tmp_path)
    for width in (72, 80, 112, 120, 128):
        assert error(bundle, picture(64, width), tile=64, overlap=16).max() <= ROUNDED


def test_where_the_network_looks_further_seams_are_soft(tmp_path):
    bundle = make(tmp_path, reach=14)  # more than the overlap of 24 covers
    pixels = picture(128, 192)
    hard = error(bundle, pixels, tile=64, overlap=0)
    soft = error(bundle, pixels, tile=64, overlap=24)
    assert hard.max() > 20  # else nothing is shown here
    assert soft.mean() < hard.mean() / 3
    assert soft.max() < hard.max()


@pytest.mark.parametrize("size", [(8, 8), (37, 91), (64, 200), (1, 3)])
def test_any_size_comes_out_times_the_scale(tmp_path, size):
    bundle = make(tmp_path, scale=3)
    pixels = picture(*size)
    found = Upscaler(bundle, OnnxRuntimeBackend(), tile=64, overlap=16).upscale(pixels)
    assert found.shape == (3 * size[0], 3 * size[1], 3)
    # What is filled up lies below and to the right: two pixels of reach from there it is not felt.
    inner = tuple(slice(0, max(0, 3 * (each - 2))) for each in size)
    assert np.abs(found[inner] - whole(bundle, pixels)[inner]).max(initial=0.0) <= ROUNDED


@pytest.mark.parametrize("side", [48, 50])
def test_a_graph_of_fixed_size_makes_the_tiles(tmp_path, side):
    bundle = make(tmp_path, "fixed", size=(side, side))
    free = make(tmp_path, "free")  # with the same weights
    pixels = picture(100, 150)
    found = Upscaler(bundle, OnnxRuntimeBackend(), overlap=16).upscale(pixels)
    assert np.abs(found - whole(free, pixels))[:196, :296].max() <= ROUNDED


def test_progress_goes_up_to_one_and_can_end_the_work(tmp_path):
    upscaler = Upscaler(make(tmp_path), OnnxRuntimeBackend(), tile=64, overlap=16)
    told = []
    upscaler.upscale(picture(100, 200), told.append)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (2 * 4, 1.0)

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscaler.upscale(picture(100, 200), stop)


def test_a_half_precision_graph_takes_pictures_too(tmp_path):
    bundle = make(tmp_path, dtype=10)
    assert bundle.manifest.components["upscaler"].precision == "fp16"
    found = Upscaler(bundle, OnnxRuntimeBackend()).upscale(picture(40, 40))
    assert found.std() > 1.0


def test_what_would_be_too_large_is_refused(tmp_path):
    upscaler = Upscaler(make(tmp_path, scale=8), OnnxRuntimeBackend())
    with pytest.raises(RequestError, match=f"at most {MAX_SIDE // 8} a side"):
        upscaler.upscale(np.zeros((8, MAX_SIDE // 8 + 1, 3), np.uint8))


@pytest.mark.parametrize("tiling", [{"tile": 60}, {"overlap": 4}, {"tile": 64, "overlap": 40}])
def test_odd_tilings_are_refused(tmp_path, tiling):
    with pytest.raises(RequestError, match="multiples of 8"):
        Upscaler(make(tmp_path), OnnxRuntimeBackend(), **tiling)


def test_another_bundle_is_no_upscaler_and_an_upscaler_draws_nothing(tmp_path):
    with pytest.raises(BundleError, match="an upscaler is needed"):
        read_scale(Bundle.open(POCKET, hash_cache=None))
    with pytest.raises(BundleError, match="draws no pictures"):
        Pipeline(make(tmp_path), FakeBackend())


class OverflowingBackend:
    """A back end whose bf16 overflows, and whose fp32 may."""

    name, device, libraries = "overflowing", "CPU", ()

    def __init__(self, precision, exact):
        self.precision, self._exact = precision, exact

    def load(self, model, shapes, *, identity=""):
        return self

    def run(self, inputs):
        (x,) = inputs.values()
        return np.full((1, 3, 2 * x.shape[2], 2 * x.shape[3]), np.inf, np.float32)

    def exact(self):
        return self._exact


def test_what_overflows_is_made_again_in_fp32_or_refused(tmp_path):
    bundle = make(tmp_path)
    pixels = picture(64, 64)
    repaired = Upscaler(bundle, OverflowingBackend("bf16", OnnxRuntimeBackend()))
    assert np.abs(repaired.upscale(pixels) - whole(bundle, pixels)).max() <= ROUNDED
    broken = Upscaler(bundle, OverflowingBackend("bf16", OverflowingBackend("fp32", None)))
    with pytest.raises(NotFiniteError, match="in fp32 as well"):
        broken.upscale(pixels)


def test_the_bundle_opens_again_as_it_was_made(tmp_path):
    bundle = make(tmp_path, scale=4)
    again = Bundle.open(bundle.path, hash_cache=None)
    assert (again.verified, again.manifest, read_scale(again)) == (True, bundle.manifest, 4)
