"""Write sealed files durably in threads, while their caller goes on.

A file is made in `incoming`, filled, flushed, and renamed into its folder of `blobs` once all of
its companions are flushed. Most of that is waiting for the disk, in which the caller seals what
comes next; and disks bring several files down in little more than the time of one. To make an empty
file takes nearly as long as to flush a small one, and needs none of its bytes: that comes first.

A thread that comes back from the disk may wait for the interpreter until its caller waits for the
disk too. Tried against that, in turn with this: shorter turns (`sys.setswitchinterval`), and a
caller that waits until a thread has begun. To wake a thread costs as much as either won.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from vault.errors import StorageError
from vault.files import NAME_BYTES, fill_file, make_file, open_folder, sync, unlink

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


class _File:
    """A file on its way: made empty, then filled and flushed, each by the next thread."""

    def __init__(self, threads: Threads, incoming: int) -> None:
        self.waiting = os.urandom(NAME_BYTES).hex()  # its name in `incoming`
        self.name = b""  # its name in `blobs`
        self._threads, self._incoming = threads, incoming
        self._fd = -1
        self._made = threads.submit(self._make)
        self._filled: _Call | None = None

    def fill(self, name: bytes, data: bytes | bytearray) -> None:
        """Begin to fill it."""
        self.name = name
        self._filled = self._threads.submit(self._fill, data)

    def result(self) -> None:
        """Wait until it is as far as it was asked to be; raises OSError."""
        (self._filled or self._made).result()

    def remove(self, blobs: int) -> None:
        """Wait for it and unlink it; what resists stays as an orphan, which `repair` finds."""
        with suppress(Exception):  # it is known already
            self.result()
        if self._fd >= 0:
            os.close(self._fd)
        # Asked of the disk: whoever is interrupted right behind a rename has not noted it.
        if unlink(self.waiting, self._incoming) or not self.name:
            return
        with suppress(OSError), open_folder(self.name[:1].hex(), blobs) as folder:
            unlink(self.name.hex(), folder)

    def _make(self) -> None:
        self._fd = make_file(self.waiting, self._incoming)

    def _fill(self, data: bytes | bytearray) -> None:
        self._made.result()  # begun before this, so in no thread's way
        fd, self._fd = self._fd, -1
        fill_file(fd, data)


class Writing:
    """Files on their way into a vault. `put` each; `finish` says that all are durable.

    Whoever has begun it calls `finish` or, whenever that did not come to its end, `undo`.
    """

    def __init__(self, threads: Threads, incoming: int, blobs: int) -> None:
        """incoming, blobs: descriptors of the folders, open until `finish` or `undo` returned."""
        self._threads = threads
        self._incoming, self._blobs = incoming, blobs
        self._expected: deque[_File] = deque()
        self._files: list[_File] = []
        self.finished = False

    def expect(self, count: int) -> None:
        """Begin to make as many files as will be `put`, while their bytes are not there yet."""
        for _ in range(count):
            self._expected.append(_File(self._threads, self._incoming))

    def put(self, name: bytes, data: bytes | bytearray) -> None:
        """Begin to write a sealed file."""
        if not self._expected:
            self.expect(1)
        self._files.append(self._expected[0])
        self._expected.popleft().fill(name, data)

    def finish(self) -> None:
        """Wait until all files are durable, under their names.

        Raises StorageError where the disk refused any of it. An fsync that failed is a failed save:
        the page may be gone, so nothing is retried.
        """
        try:
            for file in self._files:
                file.result()
            self._move()
        except OSError as error:
            raise StorageError(
                f"a sealed file could not be written: {error.strerror}",
                hint="Nothing that was saved before is lost.",
            ) from error
        self.finished = True

    def undo(self) -> None:
        """Wait for what was begun, and remove it; what resists stays as an orphan."""
        for file in {*self._files, *self._expected}:
            file.remove(self._blobs)

    def _move(self) -> None:
        """Rename the files and flush the folders."""
        with ExitStack() as stack:
            folders: dict[bytes, int] = {}
            for file in self._files:
                shard, name = file.name[:1], file.name.hex()
                if shard not in folders:
                    folders[shard] = stack.enter_context(open_folder(shard.hex(), self._blobs))
                os.rename(file.waiting, name, src_dir_fd=self._incoming, dst_dir_fd=folders[shard])
            for folder in folders.values():
                sync(folder)
        sync(self._incoming)
