"""Networks that a bundle may hold beside those of its family: tiny autoencoder, safety checker.

They belong to no family, so they are parts that a checkpoint's recipe is made longer by.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from export.checkpoint import Checkpoint
from export.recipes import PICTURE, SAMPLE, Part, Port

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPANIONS", "fixed_input", "with_parts"]

COMPANIONS = (
    Part(
        name="tiny_vae_decoder",
        module="tiny_vae_decoder",
        folder="tiny_vae",
        inputs=(Port(name="latent_sample", dtype="float32", shape=SAMPLE),),
        outputs=(Port(name="sample", dtype="float32", shape=PICTURE),),
        prefixes=("decoder.",),
    ),
    Part(
        name="tiny_vae_encoder",
        module="tiny_vae_encoder",
        folder="tiny_vae",
        inputs=(Port(name="sample", dtype="float32", shape=PICTURE),),
        # No distribution, as a VAE's encoder gives: these are the latents.
        outputs=(Port(name="latent_sample", dtype="float32", shape=SAMPLE),),
        prefixes=("encoder.",),
    ),
    Part(
        name="safety_checker",
        module="safety_checker",
        folder="safety_checker",
        inputs=(
            Port(
                name="clip_input", dtype="float32", shape=("batch", 3, "@clip_side", "@clip_side")
            ),
        ),
        # Cosines alone: what is near is decided by thresholds that stand in its config.json.
        outputs=(
            Port(name="concept_cosines", dtype="float32", shape=("batch", 17)),
            Port(name="special_care_cosines", dtype="float32", shape=("batch", 3)),
        ),
    ),
)


def with_parts(checkpoint: Checkpoint, *names: str) -> Checkpoint:
    """Make a checkpoint's recipe longer by companions, in their order."""
    old = checkpoint.recipe
    more = tuple(part for part in COMPANIONS if part.name in names)
    recipe = replace(old, components=(*old.components, *more))
    return replace(checkpoint, pieces=replace(checkpoint.pieces, recipe=recipe))


def fixed_input(name: str, side: int, clip_side: int) -> "NDArray[np.float32]":
    """Give the parity gate's input of companion `name`, the same each time.

    side: latents a side. clip_side: pixels a side of what the safety checker takes.
    """
    import numpy as np

    draw = np.random.default_rng(22)

    def normal(*shape: int) -> "NDArray[np.float32]":
        return draw.standard_normal(shape, dtype=np.float32)

    if name == "safety_checker":
        return normal(2, 3, clip_side, clip_side)
    if name == "tiny_vae_decoder":
        # Odd and not square: sizes that a graph with a frozen shape would not take. Wide enough
        # for the decoder's soft clamp to be felt.
        return normal(2, 4, side - 1, side + 2) * np.float32(2.0)
    return np.tanh(normal(1, 3, 8 * side, 8 * side + 8))
