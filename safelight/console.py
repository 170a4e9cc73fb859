"""Print: results alone on standard output, everything said to a person on standard error."""

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from safelight.exits import ExitStatus

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console

__all__ = [
    "ask",
    "is_interactive",
    "line",
    "note",
    "prepare_output",
    "printable",
    "result",
    "table",
    "to_people",
]


def to_people() -> "Console":
    """Give a console on standard error (rich; it honours NO_COLOR)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def is_interactive() -> bool:
    """Say whether a person can be asked: both standard input and error are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def note(text: str) -> None:
    """Say one thing to a person, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Print one line of a result for people, on standard output."""
    print(printable(text), flush=True)


def line(value: Mapping[str, Any]) -> None:
    """Print one JSON object a line, flushed, so that a reader in a pipe sees it when it is true.

    Control characters are escaped, so that no stored prompt can drive the terminal.
    """
    wide = (sys.stdout.encoding or "").casefold().startswith("utf")
    text = json.dumps(value, ensure_ascii=not wide)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print(text, flush=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows on standard output: a table on a terminal, tab-separated values in a pipe."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        sys.stdout.flush()
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(grid)


def prepare_output() -> None:
    """Make standard output ready: it escapes what its encoding lacks, and the program ends in order
    and as good when nobody reads it any more (`| head`): typer ends with 1 for any broken pipe.
    """
    out = cast("io.TextIOWrapper | None", sys.stdout)
    if out is None:  # closed by who started us
        return
    if out.isatty():
        out.reconfigure(errors="backslashreplace")
        return
    raw = io.BufferedWriter(_Output(out.fileno(), "w", closefd=False))
    sys.stdout = io.TextIOWrapper(
        raw, out.encoding, "backslashreplace", line_buffering=out.line_buffering
    )


class _Output(io.FileIO):
    """Standard output into a pipe or file."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for what is buffered still
            raise SystemExit(ExitStatus.GOOD) from None


def printable(text: str) -> str:
    """Replace control characters, so that no stored prompt can drive the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def ask(question: str, *, secret: bool = False) -> str:
    """Ask a person on the terminal; secret answers are not echoed."""
    if secret:
        from getpass import getpass

        return getpass(question, stream=sys.stderr)
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise KeyboardInterrupt
    return answer.rstrip(os.linesep)
