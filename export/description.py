"""Describes a checkpoint as a bundle's manifest does, before anything is made of it."""

import re
from collections.abc import Mapping

from engine.manifest import (
    FORMAT_VERSION,
    Component,
    Manifest,
    Parity,
    Source,
    TensorSpec,
)
from engine.plainexport import LATENT_RGB, LATENT_RGB_XL
from engine.usual import usual_settings
from export.checkpoint import Checkpoint
from export.parameters import precision_of
from export.recipes import Part, Port

__all__ = ["describe_checkpoint"]


def describe_checkpoint(checkpoint: Checkpoint, sha256: str) -> Manifest:
    """Give all that the loop needs to know, named by the checkpoint's own label.

    sha256: its fingerprint. What an export adds is empty: files, parity report, versions, date;
    previews go by the colours that were published for the family.
    """
    sizes = checkpoint.sizes
    side = sizes["latent_side"] * 8
    pieces = checkpoint.pieces
    return Manifest(
        format_version=FORMAT_VERSION,
        family=checkpoint.family,
        name=re.sub(r"[^A-Za-z0-9._-]", "-", pieces.label).lstrip("._-")[:64] or "checkpoint",
        source=Source(kind=pieces.kind, name=pieces.label, revision=pieces.revision, sha256=sha256),
        licence=pieces.licence,
        prediction_type=checkpoint.training.prediction_type,
        scaling_factor=checkpoint.scaling_factor,
        latent_channels=4,
        vae_scale_factor=8,
        token_limit=sizes["token_limit"],
        embed_dim=sizes["embed_dim"],
        default_width=side,
        default_height=side,
        defaults=usual_settings(
            checkpoint.training,
            checkpoint.recipe.guidance_scale,
            embedded="guidance_dim" in sizes,
        ),
        latent_rgb=LATENT_RGB_XL if checkpoint.family.startswith("sdxl") else LATENT_RGB,
        components={
            part.name: _component(part, sizes, precision_of(checkpoint.tensors[part.folder]))
            for part in checkpoint.recipe.components
        },
        files={},
        parity=Parity(precision="fp32", measures=()),
        exporter={},
        created="",
    )


def _component(part: Part, sizes: Mapping[str, int], precision: str) -> Component:
    def spec(port: Port) -> TensorSpec:
        shape = tuple(
            sizes[size[1:]] if isinstance(size, str) and size[0] == "@" else size
            for size in port.shape
        )
        return TensorSpec(dtype=port.dtype, shape=shape)

    return Component(
        file=part.file,
        data_file=f"{part.home}/model.onnx_data",
        precision=precision,
        inputs={port.name: spec(port) for port in part.inputs},
        outputs={port.name: spec(port) for port in part.outputs},
    )
