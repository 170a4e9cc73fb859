"""The engine's errors: what happened, in one sentence, and what to do about it.

The application gives each branch one exit status (CONTRACT: 2 value, 6 model or bundle, 7 device).
No message ever holds a prompt.

    EngineError
      RequestError             a value in the request is not acceptable
      BundleError              the model bundle is missing, damaged, unknown or does not fit
      DeviceError              the device, library or provider asked for cannot be used
        OutOfMemoryError       it has no memory left for this
      NotFiniteError           NaN or Inf in latents or picture, after the repair in fp32 as well
"""

from difflib import get_close_matches

__all__ = [
    "BundleError",
    "DeviceError",
    "EngineError",
    "NotFiniteError",
    "OutOfMemoryError",
    "RequestError",
    "unknown_name",
]


class EngineError(Exception):
    """Root of the engine's errors. `hint` says what to do, in one sentence, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RequestError(EngineError):
    """A value in the request is not acceptable."""


class BundleError(EngineError):
    """The model bundle is missing, damaged, unknown or does not fit."""


class DeviceError(EngineError):
    """The device, library or provider asked for cannot be used."""


class OutOfMemoryError(DeviceError):
    """The device has no memory left for this. requested: bytes that it asked for last, or 0."""

    def __init__(self, message: str, *, hint: str = "", requested: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.requested = requested


class NotFiniteError(EngineError):
    """NaN or Inf in latents or picture, after the repair in fp32 as well."""


def unknown_name(what: str, got: str, allowed: tuple[str, ...]) -> RequestError:
    """Say that `got` is no known `what`, with the nearest name and all that are allowed."""
    near = get_close_matches(got, allowed, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return RequestError(f"unknown {what} '{got}'{meant}", hint=f"one of: {', '.join(allowed)}")
