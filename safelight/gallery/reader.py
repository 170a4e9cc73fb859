"""Sealed pictures, opened in one thread: what is asked for meanwhile shares the next look."""

import asyncio
from typing import TYPE_CHECKING, Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery

__all__ = ["PictureReader"]

AT_ONCE: Final = 12  # pictures of one look at the vault: as many as two browsers ask for


class PictureReader:
    """Opens pictures for requests of one event loop.

    The vault opens one at a time: threads that wait for each other there would cost a third more,
    and each look at it costs as much as opening a thumbnail.
    """

    def __init__(self, gallery: "Gallery") -> None:
        self._gallery = gallery
        self._thread = CapacityLimiter(1)
        self._waiting: list[tuple[tuple[str, str], asyncio.Future[bytes]]] = []
        self._task: asyncio.Task[None] | None = None

    async def read(self, record_id: str, name: str) -> bytes:
        """Return a blob's plaintext. Raises what the vault raises."""
        self._gallery.catalogue.make_way()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[bytes] = loop.create_future()
        if self._task is not None and self._task.get_loop() is not loop:  # that one has ended
            self._task, self._waiting = None, []
        self._waiting.append(((record_id, name), found))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await found

    async def _work(self) -> None:
        asked: list[tuple[tuple[str, str], asyncio.Future[bytes]]] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                wanted = [each for each, _ in asked]
                results = await run_sync(self._read_each, wanted, limiter=self._thread)
                for (_, future), result in zip(asked, results, strict=True):
                    if future.done():  # who asked has gone
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._task = None
            for _, future in asked:
                future.cancel()  # of no effect but where the server stops in between

    def _read_each(self, wanted: list[tuple[str, str]]) -> "list[bytes | Exception]":
        try:
            found = self._gallery.vault.read_each(wanted)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            return [error] * len(wanted)
        return [each if isinstance(each, Exception) else bytes(each) for each in found]
