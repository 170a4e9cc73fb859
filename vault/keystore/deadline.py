"""A time limit on a call that may never return: D-Bus waits for ever by itself."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["call_within"]

T = TypeVar("T")


def call_within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns or raise what it raises, but wait no longer than `seconds`.

    Raises TimeoutError after that. The work runs in a daemon thread, since a child process would
    mean a fork, which SQLite forbids while a connection is open. A thread that never comes back
    is left behind and dies with the process: what it was doing may still happen later.
    """
    answers: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            answers.put((None, error))

    threading.Thread(target=answer, name="vault key store", daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType] - without an error this is T
