"""What can go wrong with a benchmark: one sentence, a hint, and the application's exit status."""

from difflib import get_close_matches

from safelight.exits import ApplicationError, ExitStatus, UsageError

__all__ = [
    "DriftError",
    "MissingError",
    "RegressionError",
    "ResultError",
    "RoomError",
    "TamperedError",
    "WorkerError",
    "unknown",
]


class ResultError(UsageError):
    """A result cannot be read, or two of them cannot be compared (status 2)."""


class TamperedError(ApplicationError):
    """A result is not what its signature was made of (status 4)."""

    status = ExitStatus.DAMAGED


class MissingError(ApplicationError):
    """A model, library or part of the installation that this needs is not here (status 5)."""

    status = ExitStatus.NOT_FOUND


class DriftError(ApplicationError):
    """A configuration draws other pictures than the reference: its speed counts for nothing."""

    status = ExitStatus.MODEL


class RegressionError(ApplicationError):
    """The second result is slower than `--fail` allows, beyond the noise (status 6)."""

    status = ExitStatus.MODEL


class RoomError(ApplicationError):
    """There is not enough memory or disk for a scenario (status 7)."""

    status = ExitStatus.DEVICE


class WorkerError(ApplicationError):
    """A measured process ended, or said what it could not do (status 7)."""

    status = ExitStatus.DEVICE


def unknown(what: str, got: str, allowed: tuple[str, ...]) -> UsageError:
    """Say that `got` is no known `what`, with the nearest name and all that are allowed."""
    near = get_close_matches(got, allowed, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return UsageError(f"unknown {what} '{got}'{meant}", hint=f"one of: {', '.join(allowed)}")
