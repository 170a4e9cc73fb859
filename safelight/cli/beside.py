"""Verbs that another package of ours brings: found by the distribution's own entry points.

`safelight` imports nothing of `benchmarks`. Only this distribution is asked, so that no other
installed package can put a verb into a program that holds keys.
"""

from collections.abc import MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup

from safelight.exits import ApplicationError, ExitStatus

__all__ = ["GROUP", "bench"]

GROUP = "safelight.commands"


class MissingVerbError(ApplicationError):
    """The installation lacks the package that brings a verb."""

    status = ExitStatus.NOT_FOUND


class Beside(TyperGroup):
    """A group whose commands are loaded when one of them is asked for."""

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """Load the commands; raises MissingVerbError where nothing brings them."""
        if self._loaded is None:
            self._loaded = _load(self.name or "")
        return self._loaded

    @commands.setter
    def commands(self, _given: MutableMapping[str, Any]) -> None:
        self._loaded: MutableMapping[str, Any] | None = None


def _load(name: str) -> MutableMapping[str, Any]:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution("safelight").entry_points.select(group=GROUP, name=name)
        (entry,) = list(found)[:1]
        app = entry.load()
    except (PackageNotFoundError, ValueError, ImportError) as error:
        raise MissingVerbError(
            f"this installation has no `safelight {name}`",
            hint="install safelight again, as a whole: pip install '/path/to/safelight[cpu]'",
        ) from error
    group: Any = typer.main.get_command(app)
    return group.commands


bench = typer.Typer(
    cls=Beside,
    help="Measure this machine, compare results, report them.",
    no_args_is_help=True,
)
