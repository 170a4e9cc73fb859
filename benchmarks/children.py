"""The measured processes from outside: a line of JSON goes in, a line comes back.

A child is in a session of its own, so that a Ctrl-C in the terminal reaches the parent alone, which
then keeps what was measured.
"""

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import WorkerError
from benchmarks.turns import Stopped

__all__ = ["Child", "module"]

PATIENCE: Final = 0.2  # seconds between two looks at whether somebody asked to stop
MOST_ANSWER: Final = 64 << 20  # bytes of a line; a picture of 4 million pixels packs into 17 MB
GRACE: Final = 10.0  # seconds that a child has to end


def module(name: str) -> tuple[str, ...]:
    """Give the command that runs a module of ours; -P: nothing is imported from where we stand."""
    return sys.executable, "-P", "-m", name


class Child:
    """One process that serves. command: program and arguments, without anything private.

    stop: asked while an answer is waited for; `Stopped` is raised when it says yes. limit: seconds
    that one answer may take. Raises WorkerError for a child that ends, or answers an error.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stop: Callable[[], bool] = lambda: False,
        limit: float = 3600.0,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._stop = stop
        self._limit = limit
        self._rest = b""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' own remarks, which may name files
            cwd=folder,
            env=dict(os.environ if environ is None else environ),
            start_new_session=True,
        )

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one question and give its answer."""
        return next(self.each(question))

    def each(self, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send one question and yield answers as they come, until one says `end`."""
        assert self._process.stdin is not None  # noqa: S101 - they are pipes, made above
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError("the measured process has ended") from error
        answer: dict[str, Any] = {}
        while "end" not in answer:
            answer = json.loads(self._line())
            if "error" in answer:
                raise WorkerError(answer["error"], hint=answer.get("hint", ""))
            yield answer

    def close(self) -> None:
        """End the process, kindly first."""
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            with suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(0.0 if self._stop() else GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _line(self) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - as above
        waited = 0.0
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if self._stop():
                    raise Stopped
                if not ready.select(PATIENCE):
                    waited += PATIENCE
                    if waited > self._limit:
                        raise WorkerError(f"no answer came within {self._limit:.0f} seconds")
                    continue
                piece = os.read(pipe.fileno(), 1 << 20)
                if not piece or len(self._rest) > MOST_ANSWER:
                    raise WorkerError(
                        "the measured process ended without an answer",
                        hint="memory may have run out: see dmesg; a smaller scenario takes less",
                    )
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line
