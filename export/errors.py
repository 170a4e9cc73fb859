"""The exporter's errors: what happened, in one sentence, and what to do about it.

ExportError
  SourceError     the checkpoint cannot be used (the application ends with 2, or 5 if missing)
    MissingError  the folder or a file of it is not there
  GraphError      the checkpoint's network could not be turned into a graph
  ParityError     the graph does not compute what the checkpoint computes; nothing was kept
"""

__all__ = ["ExportError", "GraphError", "MissingError", "ParityError", "SourceError"]


class ExportError(Exception):
    """Root of the exporter's errors. `hint` says what to do, in one sentence, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SourceError(ExportError):
    """The checkpoint cannot be used."""


class MissingError(SourceError):
    """The checkpoint's folder, or a file that it must have, is not there."""


class GraphError(ExportError):
    """The checkpoint's network could not be turned into a graph."""


class ParityError(ExportError):
    """The graph does not compute what the checkpoint computes; nothing was kept."""
