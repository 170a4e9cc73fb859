"""One random tiny checkpoint and its bundle, for all tests."""

from pathlib import Path

import pytest

from tests import tiny

__all__ = ["tiny_bundle", "tiny_checkpoint", "tiny_progress"]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """Give a diffusers folder with random fp16 weights, some odd parts, and a notice."""
    return tiny.tiny_checkpoint(tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """Give the bundle of `tiny_checkpoint`."""
    return tiny.tiny_bundle(tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_progress(tmp_path_factory) -> list[tuple[str, float]]:
    """Give what the export of `tiny_bundle` reported."""
    return tiny.tiny_progress(tmp_path_factory)
