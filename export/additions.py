"""Puts LoRAs and textual inversions into a checkpoint: what is added to which weight, lazily."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.checkpoint import Checkpoint, Word
from export.embedding import read_embedding, with_token
from export.errors import SourceError
from export.lora import combine, read_lora
from export.weightfiles import Tensor

__all__ = ["teach", "with_embeddings", "with_loras"]

TABLE = "embeddings.token_embedding.weight"


def with_loras(checkpoint: Checkpoint, loras: Sequence[tuple[Path, float]]) -> Checkpoint:
    """Add LoRAs, each by its scale. Raises SourceError where one does not fit."""
    parts = [part for part in checkpoint.tensors if part != "vae"]
    shapes = {
        part: {name: tensor.shape for name, tensor in checkpoint.tensors[part].items()}
        for part in parts
    }
    found = combine([read_lora(file, scale, shapes) for file, scale in loras])
    tensors = dict(checkpoint.tensors)
    for part, additions in found.items():
        changed = {
            name: replace(tensors[part][name], additions=each) for name, each in additions.items()
        }
        tensors[part] = dict(tensors[part]) | changed
    origins = {f"--lora {place} {scale:g}": file for place, (file, scale) in enumerate(loras)}
    pieces = checkpoint.pieces
    pieces = replace(pieces, tensors=tensors, origins=dict(pieces.origins) | origins)
    return replace(checkpoint, pieces=pieces)


def with_embeddings(checkpoint: Checkpoint, embeddings: Sequence[tuple[str, Path]]) -> Checkpoint:
    """Append the rows of textual inversions to the text encoders' tables, in this order.

    The tokenizers learn the words when the bundle is made. Raises SourceError for one that does
    not fit.
    """
    parts = [part for part in checkpoint.tensors if part.startswith("text_encoder")]
    pieces = checkpoint.pieces
    for token, file in embeddings:
        names = {part: _table(pieces.tensors[part]) for part in parts}
        tables = {part: pieces.tensors[part][name] for part, name in names.items()}
        rows = read_embedding(file, token, {part: each.shape[1] for part, each in tables.items()})
        tensors, configs = dict(pieces.tensors), dict(pieces.configs)
        for part, old in tables.items():
            before = [] if old.appended is None else [old.appended]
            count = old.shape[0] + len(rows[part])
            longer = replace(
                old,
                shape=(count, old.shape[1]),
                appended=np.concatenate([*before, rows[part]]),
            )
            tensors[part] = dict(tensors[part]) | {names[part]: longer}
            configs[part] = dict(configs[part]) | {"vocab_size": count}
        word = Word(
            token=token,
            rows=len(next(iter(rows.values()))),
            first={part: each.shape[0] for part, each in tables.items()},
        )
        pieces = replace(
            pieces,
            tensors=tensors,
            configs=configs,
            words=(*pieces.words, word),
            origins=dict(pieces.origins) | {f"--embedding {token}": file},
        )
    return replace(checkpoint, pieces=pieces)


def teach(words: Sequence[Word], bundle: Path) -> None:
    """Let the tokenizers in a bundle's folder know the words. Raises SourceError."""
    for word in words:
        for part, first in word.first.items():
            folder = bundle / part.replace("text_encoder", "tokenizer")
            taught = folder.with_name(f"{folder.name}.taught")
            ids = with_token(folder, taught, word.token, word.rows)
            if ids.start != first:
                raise SourceError(
                    f"the tokenizer's next id is {ids.start}, the text encoder's next row {first}:"
                    f" '{word.token}' cannot be put into this checkpoint"
                )
            shutil.rmtree(folder)
            taught.rename(folder)


def _table(tensors: Mapping[str, Tensor]) -> str:
    for name, tensor in tensors.items():
        if name.endswith(TABLE) and len(tensor.shape) == 2:
            return name
    raise SourceError("the text encoder has no table of tokens")
