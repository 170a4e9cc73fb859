"""Several devices in one process: a pipeline on each, and the pictures of requests handed out.

A picture is made whole by one replica, with its own seed: which one made it, and how many there
are, changes nothing.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from engine.errors import DeviceError
from engine.events import Event, Picture, Step
from engine.handout import Handout, InOrder, Place, shape_of
from engine.inputs import NO_INPUTS, Inputs
from engine.pipeline import LATENT_RGB, Pipeline
from engine.request import GenerationRequest

if TYPE_CHECKING:
    from engine.beside import Beside
    from engine.bundle import Bundle
    from engine.devices import Choice

__all__ = ["Outcome", "Replicas", "draw_all", "pipeline_for"]

GoesOn = Callable[[BaseException], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An event of the picture at a place, or the error that it ended with. dropped: numbers of
    pictures of its request that will therefore not be made.
    """

    place: Place
    event: Event | BaseException
    dropped: Sequence[int] = ()


def pipeline_for(
    bundle: "Bundle", choice: "Choice", *, check_safety: bool, beside: "Beside"
) -> "Pipeline | Replicas":
    """Give a pipeline on the chosen device, or one on each of several."""
    choices = [choice, *(replace(choice, backend=each, others=()) for each in choice.others)]
    made = [Pipeline(bundle, each, check_safety=check_safety, beside=beside) for each in choices]
    return made[0] if len(made) == 1 else Replicas(made)


def draw_all(
    pipeline: "Pipeline | Replicas",
    requests: Sequence[GenerationRequest],
    cancelled: Callable[[], bool] = lambda: False,
    *,
    inputs: Inputs = NO_INPUTS,
    goes_on: GoesOn = lambda _: False,
) -> Generator[Outcome]:
    """Make the pictures of all requests, as many at once as there are devices.

    Pictures come as soon as they are made, which for several devices may be before earlier ones
    (`InOrder` sorts them); steps of several mix. An error is an outcome too: nothing is raised.
    goes_on: asked in the caller's thread whether others are still made after an error; those of the
    same request that were not begun are dropped. Else the error is the last outcome. inputs: go in
    with every request. cancelled: as `Pipeline.generate` has it. Close it where it is not read to
    its end: devices wait for their reader.
    """
    if isinstance(pipeline, Replicas):
        return pipeline.draw_all(requests, cancelled, inputs=inputs, goes_on=goes_on)
    return _one_by_one(pipeline, requests, cancelled, inputs, goes_on)


def _one_by_one(
    pipeline: Pipeline,
    requests: Sequence[GenerationRequest],
    cancelled: Callable[[], bool],
    inputs: Inputs,
    goes_on: GoesOn,
) -> Generator[Outcome]:
    numbers = count()
    places = [
        [
            Place(number=next(numbers), request=index, picture=picture)
            for picture in range(each.count)
        ]
        for index, each in enumerate(requests)
    ]
    start = 0
    while start < len(requests):
        ahead = requests[start : start + requests[start].batch_size]
        end = start + pipeline.together(ahead, inputs=inputs)
        mine = [place for each in places[start:end] for place in each]
        made = 0
        try:
            together = pipeline.generate_together(requests[start:end], cancelled, inputs=inputs)
            for event in together:
                if isinstance(event, Step):
                    yield Outcome(place=mine[event.picture], event=event)
                else:
                    yield Outcome(place=mine[made], event=event)
                    made += 1
        except Exception as error:  # noqa: BLE001  it is an outcome
            place = mine[made]
            last = places[place.request][-1].number
            yield Outcome(place=place, event=error, dropped=range(place.number + 1, last + 1))
            if not goes_on(error):
                return
            start = place.request + 1  # those that were drawn with it are drawn again
        else:
            if made < len(mine):  # cancelled
                return
            start = end


@dataclass(frozen=True, kw_only=True)
class _Said:
    """An outcome, or the end of a replica's work. taken: set by the reader when it asks for the
    next one, until which the replica waits: a preview reads its buffers.
    """

    place: Place | None = None
    event: Event | BaseException | None = None
    taken: threading.Event = field(default_factory=threading.Event)


class Replicas:
    """Makes pictures with one bundle on several devices; stands where one `Pipeline` does.

    Each replica keeps a thread of its own for good: CUDA graphs belong to the thread that captured
    them. One call at a time.
    """

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = tuple(pipelines)
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"replica-{number}")
            for number in range(len(self._pipelines))
        ]

    @property
    def model(self) -> str:
        """Name the bundle."""
        return self._pipelines[0].model

    def load(self, width: int, height: int, *, guided: bool = True) -> float:
        """Load the networks on every device; gives the seconds that the slowest took."""
        waiting = [
            thread.submit(pipeline.load, width, height, guided=guided)
            for thread, pipeline in zip(self._threads, self._pipelines, strict=True)
        ]
        return max(each.result() for each in waiting)

    def generate(
        self,
        request: GenerationRequest,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        inputs: Inputs = NO_INPUTS,
        previews: str = LATENT_RGB,
    ) -> Iterator[Event]:
        """Yield as `Pipeline.generate` does, pictures in the order of their seeds, but that steps
        of several pictures mix.

        Raises as it does, with the device in the text; the first error of any replica ends the
        events, behind the pictures that are finished.
        """
        # The request is checked at once, by making its events and taking none.
        self._pipelines[0].generate(request, cancelled, inputs=inputs, previews=previews)
        return _ordered(self.draw_all([request], cancelled, inputs=inputs, previews=previews))

    def draw_all(
        self,
        requests: Sequence[GenerationRequest],
        cancelled: Callable[[], bool] = lambda: False,
        *,
        inputs: Inputs = NO_INPUTS,
        previews: str = LATENT_RGB,
        goes_on: GoesOn = lambda _: False,
    ) -> Generator[Outcome]:
        """Make the pictures of all requests as the function `draw_all` says."""
        handout = Handout(requests)
        stop = threading.Event()
        said: queue.Queue[_Said] = queue.Queue()

        def asked_to_stop() -> bool:
            return stop.is_set() or cancelled()

        def say(place: Place | None, event: Event | BaseException | None) -> None:
            told = _Said(place=place, event=event)
            said.put(told)
            told.taken.wait()

        def draw(pipeline: Pipeline, place: Place) -> None:
            one = requests[place.request].of_picture(place.picture)
            try:
                for event in pipeline.generate(
                    one, asked_to_stop, inputs=inputs, previews=previews
                ):
                    say(place, event)
            except BaseException as error:  # noqa: BLE001  it is told where outcomes are taken
                say(place, _named(error, pipeline.device))

        def work(pipeline: Pipeline) -> None:
            place = handout.take(())
            while place is not None and not asked_to_stop():
                draw(pipeline, place)
                place = handout.take(shape_of(requests[place.request]))
            said.put(_Said())

        count = min(sum(request.count for request in requests), len(self._pipelines))
        running = [
            thread.submit(work, pipeline)
            for thread, pipeline in zip(self._threads[:count], self._pipelines[:count], strict=True)
        ]
        try:
            yield from _outcomes(said, count, handout, goes_on, stop)
        finally:
            stop.set()
            while not all(each.done() for each in running):  # whoever waits to be read goes on
                try:
                    said.get(timeout=0.05).taken.set()
                except queue.Empty:
                    continue


def _outcomes(
    said: "queue.Queue[_Said]",
    running: int,
    handout: Handout,
    goes_on: GoesOn,
    stop: threading.Event,
) -> Iterator[Outcome]:
    """Yield what replicas say until the last of them has ended. An error that ends it all comes
    last, behind pictures that others finished meanwhile.
    """
    failed: Outcome | None = None
    while running:
        told = said.get()
        try:
            if told.place is None or told.event is None:
                running -= 1
            elif not isinstance(told.event, BaseException):
                if failed is None or isinstance(told.event, Picture):
                    yield Outcome(place=told.place, event=told.event)
            elif failed is None and goes_on(told.event):
                dropped = handout.drop(told.place.request)
                yield Outcome(place=told.place, event=told.event, dropped=dropped)
            else:
                stop.set()  # before the replica that failed takes the next picture
                failed = failed or Outcome(place=told.place, event=told.event)
        finally:  # also where the reader ends in the middle
            told.taken.set()
    if failed is not None:
        yield failed


def _ordered(outcomes: Generator[Outcome]) -> Iterator[Event]:
    """Yield steps as they come and pictures in their order; raises the first error."""
    line: InOrder[Picture] = InOrder()
    error: BaseException | None = None
    with closing(outcomes):
        for each in outcomes:
            if isinstance(each.event, Step):
                yield replace(each.event, picture=each.place.picture)
            elif isinstance(each.event, Picture):
                line.put(each.place.number, each.event)
                yield from line.ready()
            else:
                error = each.event
    yield from line.rest()
    if error is not None:
        raise error


def _named(error: BaseException, device: str) -> BaseException:
    """Let an error of a device say of which one."""
    if isinstance(error, DeviceError) and device not in str(error):
        error.args = (f"{device}: {error}",)
    return error
