"""Versions of installed distributions, for the keys of derived forms."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed"]


def installed(*distributions: str) -> dict[str, str]:
    """Give distribution -> its version, or 'unknown' where it is not installed."""
    found: dict[str, str] = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
