"""A profile covers what is asked for, in each component's own sizes."""

from dataclasses import dataclass
from pathlib import Path

import pytest

import safelight
from engine.manifest import TensorSpec, read_manifest
from export.errors import GraphError, SourceError
from export.targets.profile import CHUNKS, profile_of, shape_ranges

MANIFEST = read_manifest(Path(safelight.__file__).with_name("models") / "pocket")


@dataclass(frozen=True)
class Shape:
    width: int
    height: int
    batch: int = 1


def ranges(component, *shapes):
    inputs = MANIFEST.components[component].inputs
    return shape_ranges(inputs, profile_of(MANIFEST, shapes))


def test_without_shapes_it_is_one_picture_of_the_default_size():
    side = MANIFEST.default_width // 8
    found = ranges("unet")
    sample = found["sample"]
    assert (sample.least, sample.best) == ((1, 4, side, side), (2, 4, side, side))
    assert sample.most == sample.best
    words = found["encoder_hidden_states"]
    assert words.least == (1, MANIFEST.token_limit, MANIFEST.embed_dim)
    assert words.most == (2, CHUNKS * MANIFEST.token_limit, MANIFEST.embed_dim)
    assert "timestep" not in found  # a scalar has nothing free


def test_all_shapes_are_covered_and_the_largest_is_the_best():
    found = ranges("unet", Shape(64, 64), Shape(96, 128, 2), Shape(64, 256))["sample"]
    assert found.least == (1, 4, 8, 8)
    assert found.best == (4, 4, 16, 12)
    assert found.most == (4, 4, 32, 12)
    picture = ranges("vae_encoder", Shape(96, 128), Shape(64, 256))["sample"]
    assert (picture.best, picture.most) == ((2, 3, 256, 64), (2, 3, 256, 96))


def test_the_default_size_is_the_best_where_it_is_among_them():
    side = MANIFEST.default_width
    found = ranges("vae_decoder", Shape(side, side), Shape(2 * side, 2 * side))["latent_sample"]
    assert found.best == (2, 4, side // 8, side // 8)


def test_it_is_written_as_a_line_of_the_report():
    assert str(ranges("vae_decoder", Shape(64, 64))["latent_sample"]) == (
        "1x4x8x8..2x4x8x8..2x4x8x8"
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(SourceError, match="100x64 is no size") as caught:
        profile_of(MANIFEST, [Shape(100, 64)])
    assert "multiples of 8" in caught.value.hint
    inputs = {"hint": TensorSpec(dtype="float32", shape=("batch", "frames"))}
    with pytest.raises(GraphError, match="'frames'"):
        shape_ranges(inputs, profile_of(MANIFEST, []))
