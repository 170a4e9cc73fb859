"""Write sealed files durably, each in a thread of its own, while their caller goes on.

A file is made in `incoming`, flushed, and renamed into its folder of `blobs` once all of its
companions are flushed. Most of that is waiting for the disk, in which the caller seals what comes
next; and disks bring several files down in little more than the time of one.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from vault.errors import StorageError
from vault.files import NAME_BYTES, open_folder, sync, unlink, write_file

__all__ = ["Threads", "Writing"]

_THREADS = 2  # as many as an ordinary picture has files


class _Call:
    """A call that a thread makes."""

    def __init__(self, call: Callable[..., None], given: tuple[Any, ...]) -> None:
        self._call, self._given = call, given
        self._error: Exception | None = None
        self._running = Lock()
        self._running.acquire()

    def run(self) -> None:
        """Make the call; the thread lives on, whatever it raises."""
        try:
            self._call(*self._given)
        except Exception as error:  # noqa: BLE001 - raised by `result`
            self._error = error
        finally:
            self._running.release()

    def result(self) -> None:
        """Wait until it was made, and raise what it raised."""
        with self._running:
            pass
        if self._error is not None:
            raise self._error


class Threads:
    """Threads that make calls in their order, started with the first of them.

    `concurrent.futures` has the like; between two threads that hand on a third of a millisecond,
    its conditions cost as much as the disk.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def submit(self, call: Callable[..., None], *given: Any) -> _Call:
        """Have a call made by the next thread that is free."""
        begun = _Call(call, given)
        if self._started():
            self._queue.put(begun)
        else:
            begun.run()
        return begun

    def _started(self) -> bool:
        if not self._threads:
            try:
                for _ in range(_THREADS):
                    thread = Thread(target=self._work, name="vault-writing", daemon=True)
                    thread.start()
                    self._threads.append(thread)
            except RuntimeError:  # no more threads, or the interpreter is ending
                return bool(self._threads)
        return True

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call.run()
            del call  # sealed bytes would stay until the next call

    def close(self) -> None:
        """Let the threads end, after all calls."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


class Writing:
    """Files on their way into a vault. `put` each, then `end`; `finish` says that all are durable.

    Whoever has begun it calls `finish` or, whenever that did not come to its end, `undo`.
    """

    def __init__(self, threads: Threads, incoming: int, blobs: int) -> None:
        """incoming, blobs: descriptors of the folders, open until `finish` or `undo` returned."""
        self._threads = threads
        self._incoming, self._blobs = incoming, blobs
        self._files: list[tuple[bytes, str, _Call]] = []  # name, name in `incoming`
        self._moved: list[bytes] = []
        self._ending: _Call | None = None
        self.finished = False

    def put(self, name: bytes, data: bytes | bytearray) -> None:
        """Begin to write a sealed file."""
        waiting = os.urandom(NAME_BYTES).hex()
        begun = self._threads.submit(write_file, waiting, data, self._incoming)
        self._files.append((name, waiting, begun))

    def end(self) -> _Call:
        """Say that no more files come: they are moved to their names when all are flushed."""
        self._ending = self._threads.submit(self._move)
        return self._ending

    def finish(self) -> None:
        """Wait until all files are durable, under their names.

        Raises StorageError where the disk refused any of it. An fsync that failed is a failed save:
        the page may be gone, so nothing is retried.
        """
        ending = self._ending or self.end()
        try:
            ending.result()
        except OSError as error:
            raise StorageError(
                f"a sealed file could not be written: {error.strerror}",
                hint="Nothing that was saved before is lost.",
            ) from error
        self.finished = True

    def undo(self) -> None:
        """Wait for what was begun, and remove it; what resists stays as an orphan."""
        for begun in [*(begun for _, _, begun in self._files), self._ending]:
            with suppress(Exception):  # it is known already
                if begun is not None:
                    begun.result()
        for name, waiting, _ in self._files:
            if name not in self._moved:
                unlink(waiting, self._incoming)
                continue
            try:
                with open_folder(name[:1].hex(), self._blobs) as folder:
                    unlink(name.hex(), folder)
            except OSError:  # `repair` finds orphans; the error that led here is the news
                continue

    def _move(self) -> None:
        """Rename the files and flush the folders. All writes were begun before, so none waits for
        the thread that this one takes.
        """
        for _, _, begun in self._files:
            begun.result()
        with ExitStack() as stack:
            folders: dict[bytes, int] = {}
            for name, waiting, _ in self._files:
                shard = name[:1]
                if shard not in folders:
                    folders[shard] = stack.enter_context(open_folder(shard.hex(), self._blobs))
                os.rename(waiting, name.hex(), src_dir_fd=self._incoming, dst_dir_fd=folders[shard])
                self._moved.append(name)
            for folder in folders.values():
                sync(folder)
        sync(self._incoming)
