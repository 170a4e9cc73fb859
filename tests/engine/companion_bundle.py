"""Pocket with a tiny decoder and a safety checker in its manifest, for the shipped fake to run."""

import json
from dataclasses import replace
from pathlib import Path

from engine.bundle import Bundle
from engine.manifest import Component, TensorSpec

__all__ = ["with_companions"]

CONCEPTS, CARES = 17, 3


def with_companions(
    bundle: Bundle, folder: Path, *, threshold: float = 0.5, **tiny: object
) -> Bundle:
    """Give the bundle at `folder`. threshold: of every concept. tiny: the decoder's config."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer").symlink_to(bundle.path / "tokenizer")
    parts = {
        "tiny_vae_decoder/config.json": tiny,
        "safety_checker/config.json": {
            "concept_embeds_weights": [threshold] * CONCEPTS,
            "special_care_embeds_weights": [1.0] * CARES,
        },
        "feature_extractor/preprocessor_config.json": {"size": 40, "crop_size": 32},
    }
    for name, value in parts.items():
        path = folder / name
        path.parent.mkdir()
        path.write_text(json.dumps(value))
    old = bundle.manifest.components
    decoder = replace(old["vae_decoder"], file="tiny_vae_decoder/model.onnx")
    checker = Component(
        file="safety_checker/model.onnx",
        data_file="",
        precision="fp32",
        inputs={"clip_input": TensorSpec(dtype="float32", shape=("batch", 3, 32, 32))},
        outputs={
            "concept_cosines": TensorSpec(dtype="float32", shape=("batch", CONCEPTS)),
            "special_care_cosines": TensorSpec(dtype="float32", shape=("batch", CARES)),
        },
    )
    components = dict(old) | {"tiny_vae_decoder": decoder, "safety_checker": checker}
    return replace(bundle, path=folder, manifest=replace(bundle.manifest, components=components))
