"""A thread that encodes finished pictures and seals them while the next ones are being made."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from safelight.drafts import picture_draft
from safelight.records import generated_line

if TYPE_CHECKING:
    from engine import Picture
    from vault import BlobDraft, Draft

__all__ = ["BATCH", "PATIENCE", "Keeper", "Sealed", "Sealer"]

BATCH = 16  # pictures a transaction at most (VAULT.md 5)
PATIENCE = 1.0  # seconds that a finished picture waits for company before it is committed
ROOM = 32  # pictures that wait to be encoded; beyond, making them is faster than the disk


class Named(Protocol):
    """What is kept has an id."""

    @property
    def id(self) -> str:
        """Give the id."""
        ...


class Keeper(Protocol):
    """Where finished pictures go: the vault, or memory alone."""

    def add(self, drafts: "Sequence[Draft]", /) -> "Sequence[Named]":
        """Keep all of them or none, and give what each is found by, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Sealed:
    """A picture is durable in the vault: its record id and the line that `--json` prints.

    more: what was sealed with it beside its own metadata.
    """

    record_id: str
    line: dict[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A picture and what is sealed with it."""

    picture: "Picture"
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A picture as the vault takes it, what goes with it, and the seconds that encoding took."""

    draft: "Draft"
    more: Mapping[str, Any]
    seconds: float


class Sealer:
    """Seals pictures in the order in which they come, up to 16 in one transaction.

    The thread starts with the first picture and ends with `finish`, after which it may start again.
    What it could not seal is kept, tried once more by `finish`, each alone, and raised. One thread
    hands pictures over and takes results; it never sees a result before its record is durable.
    """

    def __init__(
        self,
        vault: Keeper,
        inputs: "Callable[[], tuple[BlobDraft, ...]]",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """inputs: gives what went in, as it is sealed with each picture; asked in the thread."""
        self._vault = vault
        self._inputs = inputs
        self._clock = clock
        self._changed = threading.Condition()
        self._finished: deque[_Finished] = deque()
        self._encoded: list[_Encoded] = []  # the thread's own while it runs
        self._sealed: deque[Sealed] = deque()
        self._error: BaseException | None = None
        self._ending = False
        self._thread: threading.Thread | None = None

    def put(self, picture: "Picture", more: Mapping[str, Any]) -> None:
        """Hand a finished picture over; waits while `ROOM` others wait to be encoded.

        more: metadata beside the picture's own. Raises what sealing an earlier one raised; the
        picture is kept for `finish` all the same.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sealer", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._finished) < ROOM)
            self._finished.append(_Finished(picture, more))
            self._changed.notify_all()
        self._raise()

    def sealed(self) -> Iterator[Sealed]:
        """Yield what has become durable since it was last asked for, without waiting.

        Raises what sealing raised.
        """
        while self._sealed:
            yield self._sealed.popleft()
        self._raise()

    def finish(self) -> Iterator[Sealed]:
        """Seal all that was handed over, end the thread, and yield what has not been yielded.

        All is sealed before the first is yielded. What failed is tried once more, each picture
        alone. Raises the first error of that; what still is not sealed is given up.
        """
        if self._thread is not None:
            with self._changed:
                self._ending = True
                self._changed.notify_all()
            self._thread.join()
            self._thread, self._ending = None, False
        failed: Exception | None = None
        if self._error is not None:
            self._error = None
            try:
                self._try_again()
            except Exception as error:  # noqa: BLE001 - raised once what is durable is told
                failed = error
        while self._sealed:
            yield self._sealed.popleft()
        if failed is not None:
            raise failed

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _try_again(self) -> None:
        left, self._finished = self._finished, deque()
        encoded, self._encoded = self._encoded, []
        failed: Exception | None = None
        for each in (*encoded, *left):  # one at a time: what cannot be sealed costs no other
            try:
                self._commit([each if isinstance(each, _Encoded) else self._encode(each)])
            except Exception as error:  # noqa: BLE001 - raised once all were tried
                failed = failed or error
        if failed is not None:
            raise failed

    def _work(self) -> None:
        try:
            while self._gather():
                self._commit(self._encoded)
                self._encoded = []
        except BaseException as error:  # noqa: BLE001 - raised again where results are taken
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _gather(self) -> bool:
        """Encode the pictures of one transaction; say whether there are any."""
        until: float | None = None
        while len(self._encoded) < BATCH and self._has_next(until):
            self._encoded.append(self._encode(self._finished[0]))
            with self._changed:
                self._finished.popleft()  # only now: an error leaves it to `finish`
                self._changed.notify_all()
            until = self._clock() + PATIENCE if until is None else until
        return bool(self._encoded)

    def _has_next(self, until: float | None) -> bool:
        """Wait for a picture; no at the time `until`, or at the end when none is left."""
        with self._changed:
            while not self._finished:
                left = None if until is None else until - self._clock()
                if self._ending or (left is not None and left <= 0):
                    return False
                self._changed.wait(left)
            return True

    def _encode(self, finished: _Finished) -> _Encoded:
        start = time.perf_counter()
        draft = picture_draft(finished.picture, finished.more, self._inputs())
        return _Encoded(draft, finished.more, time.perf_counter() - start)

    def _commit(self, encoded: list[_Encoded]) -> None:
        start = time.perf_counter()
        records = self._vault.add([each.draft for each in encoded])
        share = (time.perf_counter() - start) / len(records)
        for record, each in zip(records, encoded, strict=True):
            line = generated_line(record.id, each.draft.metadata, each.seconds + share)
            self._sealed.append(Sealed(record.id, line, each.more))
