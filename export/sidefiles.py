"""The small files beside a bundle's graphs: tokenizers, configurations, notices."""

import json
from collections.abc import Iterator, Mapping

from export.checkpoint import Checkpoint

__all__ = ["side_files"]


def side_files(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """Yield the name in the bundle, and the content, of every file that is no graph."""
    yield from checkpoint.pieces.files.items()
    kept = {*checkpoint.recipe.classes, "scheduler"}
    index = {
        # A part that the bundle does not hold (safety checker, image encoder) is none in it.
        key: [None, None] if isinstance(value, list) and key not in kept else value
        for key, value in checkpoint.pieces.index.items()
    }
    if not checkpoint.recipe.add_on:
        yield "model_index.json", _json(index)
        yield "scheduler/scheduler_config.json", _json(checkpoint.configs["scheduler"])
    # Beside each model, as optimum has it. Graphs that share a home share its configuration.
    homes = {part.home: part.folder for part in checkpoint.recipe.components}
    for home, folder in homes.items():
        yield f"{home}/config.json", _json(checkpoint.configs[folder])


def _json(value: Mapping[str, object]) -> bytes:
    # _name_or_path is a path on the machine of whoever saved the checkpoint: nobody's business.
    kept = {key: item for key, item in value.items() if key != "_name_or_path"}
    return (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode()
