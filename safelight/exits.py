"""Exit statuses, and which error ends with which (CONTRACT: Exit status)."""

from enum import IntEnum

__all__ = ["ApplicationError", "ExitStatus", "UsageError", "exit_status", "place_of"]


class ExitStatus(IntEnum):
    """What the shell sees."""

    GOOD = 0
    UNEXPECTED = 1
    USAGE = 2
    LOCKED = 3
    DAMAGED = 4
    NOT_FOUND = 5
    MODEL = 6
    DEVICE = 7
    STORAGE = 8
    INTERRUPTED = 130


class ApplicationError(Exception):
    """Root of the application's own errors. `hint` says what to do, in a sentence, or is empty."""

    status = ExitStatus.UNEXPECTED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ApplicationError):
    """A flag, a file or a combination of them is not acceptable."""

    status = ExitStatus.USAGE


# By class name along the inheritance line, so that no package is imported only to be compared with.
_BY_NAME = {
    "vault.errors.BadValueError": ExitStatus.USAGE,
    "vault.errors.LockedError": ExitStatus.LOCKED,
    "vault.errors.DamagedError": ExitStatus.DAMAGED,
    "vault.errors.NotFoundError": ExitStatus.NOT_FOUND,
    "vault.errors.StorageError": ExitStatus.STORAGE,
    "engine.errors.RequestError": ExitStatus.USAGE,
    "engine.errors.BundleError": ExitStatus.MODEL,
    "engine.errors.NotFiniteError": ExitStatus.MODEL,
    "engine.errors.DeviceError": ExitStatus.DEVICE,
    "export.errors.MissingError": ExitStatus.NOT_FOUND,
    "export.errors.SourceError": ExitStatus.MODEL,
    "export.errors.ParityError": ExitStatus.MODEL,
    "export.errors.ExportError": ExitStatus.MODEL,
}


def exit_status(error: BaseException) -> ExitStatus:
    """Give the exit status that this error ends the command with."""
    if isinstance(error, ApplicationError):
        return error.status
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    for cls in type(error).__mro__:
        status = _BY_NAME.get(f"{cls.__module__}.{cls.__name__}")
        if status is not None:
            return status
    if isinstance(error, FileNotFoundError):
        return ExitStatus.NOT_FOUND
    if isinstance(error, OSError):
        return ExitStatus.STORAGE
    return ExitStatus.UNEXPECTED


def place_of(error: BaseException) -> str:
    """Name the innermost line that an error came from: no values, which could hold a prompt."""
    trace, place = error.__traceback__, "the command line"
    while trace is not None:
        code = trace.tb_frame.f_code
        module = trace.tb_frame.f_globals.get("__name__", "?")
        place = f"{module}.{code.co_name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
