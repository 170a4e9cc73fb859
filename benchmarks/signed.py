"""Reads results that may have come from anywhere: bounded, of the schema, unchanged if signed."""

from pathlib import Path

from benchmarks.document import Result, read_result
from benchmarks.pseudonym import check_signature

__all__ = ["read_signed"]


def read_signed(path: Path) -> Result:
    """Read a result. Raises ResultError, and TamperedError where its signature does not fit."""
    result = read_result(path)
    check_signature(result, path.name)
    return result
