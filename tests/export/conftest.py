"""One random tiny checkpoint and its bundle, made once a session: an export takes half a minute."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from export import Ingredients, Options, export_checkpoint
from export.architectures import TINY, write_random_checkpoint

__all__ = ["CREATED", "tiny_bundle", "tiny_checkpoint", "tiny_progress"]

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """Give a diffusers folder with random fp16 weights, some odd parts, and a notice."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny source"
    write_random_checkpoint(folder, TINY, seed=1)
    (folder / "LICENSE.md").write_text("Do what you like.\n")
    (folder / "README.md").write_text("not carried over\n")
    return folder


@pytest.fixture(scope="session")
def tiny_progress() -> list[tuple[str, float]]:
    """Collect what the export of `tiny_bundle` reported."""
    return []


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_checkpoint, tiny_progress) -> Path:
    """Give the bundle of `tiny_checkpoint`."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    export_checkpoint(
        Ingredients(source=tiny_checkpoint),
        out,
        name="tiny",
        licence="CC0-1.0",
        progress=lambda stage, fraction: tiny_progress.append((stage, fraction)),
        options=Options(steps=12, guidance_scale=4.0, now=lambda: CREATED),
    )
    return out
