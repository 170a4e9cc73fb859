"""Turn the first Ctrl-C (or SIGTERM) into a wish to stop between steps; the second insists."""

import signal
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Interruption"]


class Interruption:
    """Within the `with` block, calling it says whether somebody asked to stop."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, signal.Handlers | object] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Self:
        for name in (signal.SIGINT, signal.SIGTERM):
            self._before[name] = signal.signal(name, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)  # pyright: ignore[reportArgumentType] - what signal() gave

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
