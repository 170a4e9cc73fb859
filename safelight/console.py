"""Print: results alone on standard output, everything said to a person on standard error."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ask", "is_interactive", "line", "note", "printable", "result", "table", "to_people"]


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
    """Print one JSON object a line, flushed, so that a reader in a pipe sees it when it is true."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows on standard output: a table on a terminal, tab-separated values in a pipe."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(grid)


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
