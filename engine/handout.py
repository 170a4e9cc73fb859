"""Which picture of several requests is made next, and by whom; and how they come back in order."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from engine.request import GenerationRequest

__all__ = ["AHEAD", "Handout", "InOrder", "Place", "Shape", "shape_of"]

# Places that a picture of the shape at hand is looked for beyond the first one that waits: what is
# made early waits in memory, 0.8 MB for 512x512 pixels.
AHEAD: Final = 16
Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Picture `picture` of request `request`, and its number among all pictures; each from 0."""

    number: int
    request: int
    picture: int


def shape_of(request: "GenerationRequest") -> Shape:
    """Give what a replica's networks are loaded for: the sizes in pixels that are drawn at."""
    return request.width, request.height, *request.final_size


class Handout:
    """Hands out the pictures of requests, each once. Safe to use from several threads."""

    def __init__(self, requests: "Sequence[GenerationRequest]") -> None:
        self._shapes = [shape_of(request) for request in requests]
        places = (
            (index, picture)
            for index, request in enumerate(requests)
            for picture in range(request.count)
        )
        self._waiting = deque(
            Place(number=number, request=index, picture=picture)
            for number, (index, picture) in enumerate(places)
        )
        self._guard = threading.Lock()

    def take(self, shape: Shape) -> Place | None:
        """Give the first picture of a shape, so that nothing is loaded anew, where one is less than
        AHEAD behind the first that waits; else that one. None when all are handed out.
        """
        with self._guard:
            if not self._waiting:
                return None
            end = self._waiting[0].number + AHEAD
            for index, place in enumerate(self._waiting):
                if place.number >= end:
                    break
                if self._shapes[place.request] == shape:
                    del self._waiting[index]
                    return place
            return self._waiting.popleft()

    def drop(self, request: int) -> tuple[int, ...]:
        """Hand no more out of a request; gives the numbers of what will not be made."""
        with self._guard:
            dropped = tuple(each.number for each in self._waiting if each.request == request)
            self._waiting = deque(each for each in self._waiting if each.request != request)
        return dropped


class InOrder(Generic[T]):
    """Brings things into the order of their numbers, which are 0 and on."""

    def __init__(self) -> None:
        self._early: dict[int, T] = {}
        self._skipped: set[int] = set()
        self._next = 0

    def put(self, number: int, thing: T) -> None:
        """Keep a thing until all before it were taken."""
        self._early[number] = thing

    def skip(self, numbers: Sequence[int]) -> None:
        """Wait no longer for these."""
        self._skipped.update(numbers)

    def ready(self) -> Iterator[T]:
        """Take what has nothing before it that is still to come."""
        while self._next in self._early or self._next in self._skipped:
            number = self._next
            self._next += 1
            if number in self._skipped:
                self._skipped.remove(number)
            else:
                yield self._early.pop(number)

    def rest(self) -> Iterator[T]:
        """Take all that is there, in order, whatever is still to come before it."""
        for number in sorted(self._early):
            yield self._early.pop(number)
