"""Several devices in one process: a pipeline on each, and the pictures of a request handed out.

A picture is made whole by one replica, with its own seed, and comes in its place: which one made
it, and how many there are, changes nothing.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engine.events import Event, Picture, Step
from engine.inputs import NO_INPUTS, Inputs
from engine.pipeline import LATENT_RGB, Pipeline
from engine.request import GenerationRequest

if TYPE_CHECKING:
    from engine.beside import Beside
    from engine.bundle import Bundle
    from engine.devices import Choice

__all__ = ["Replicas", "pipeline_for"]


def pipeline_for(
    bundle: "Bundle", choice: "Choice", *, check_safety: bool, beside: "Beside"
) -> "Pipeline | Replicas":
    """Give a pipeline on the chosen device, or one on each of several."""
    choices = [choice, *(replace(choice, backend=each, others=()) for each in choice.others)]
    made = [Pipeline(bundle, each, check_safety=check_safety, beside=beside) for each in choices]
    return made[0] if len(made) == 1 else Replicas(made)


@dataclass(frozen=True, kw_only=True)
class _Said:
    """An event of picture `index`, an error, or the end (event None). taken: set by the reader when
    it asks for the next one, until which the replica waits: a preview reads its buffers.
    """

    index: int
    event: Event | None
    error: BaseException | None = None
    taken: threading.Event = field(default_factory=threading.Event)


class Replicas:
    """Makes pictures with one bundle on several devices; stands where one `Pipeline` does.

    Each replica keeps a thread of its own for good: CUDA graphs belong to the thread that captured
    them. Pictures come in the order of their seeds, steps as they are done.
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
        """Yield as `Pipeline.generate` does, but that steps of several pictures mix.

        Raises as it does; the first error of any replica ends the events.
        """
        # The request is checked at once, by making its events and taking none.
        self._pipelines[0].generate(request, cancelled, inputs=inputs, previews=previews)
        return self._run(request, cancelled, inputs, previews)

    def _run(
        self,
        request: GenerationRequest,
        cancelled: Callable[[], bool],
        inputs: Inputs,
        previews: str,
    ) -> Iterator[Event]:
        waiting = deque(range(request.count))
        count = min(request.count, len(self._pipelines))
        stop = threading.Event()
        said: queue.Queue[_Said] = queue.Queue()

        def asked_to_stop() -> bool:
            return stop.is_set() or cancelled()

        def work(pipeline: Pipeline) -> None:
            index = -1
            try:
                while waiting and not asked_to_stop():
                    index = waiting.popleft()
                    one = request.of_picture(index)
                    events = pipeline.generate(one, asked_to_stop, inputs=inputs, previews=previews)
                    for event in events:
                        told = _Said(index=index, event=event)
                        said.put(told)
                        told.taken.wait()
            except IndexError:  # another one took the last picture
                pass
            except BaseException as error:  # noqa: BLE001  it is raised where events are taken
                said.put(_Said(index=index, event=None, error=error))
                return
            said.put(_Said(index=index, event=None))

        running = [
            thread.submit(work, pipeline)
            for thread, pipeline in zip(self._threads[:count], self._pipelines[:count], strict=True)
        ]
        try:
            yield from _ordered(said, len(running))
        finally:
            stop.set()
            while not all(each.done() for each in running):  # whoever waits to be read goes on
                try:
                    said.get(timeout=0.05).taken.set()
                except queue.Empty:
                    continue


def _ordered(said: "queue.Queue[_Said]", running: int) -> Iterator[Event]:
    """Yield steps as they come and pictures in their order; raises the first error."""
    early: dict[int, Picture] = {}
    place = 0
    while running:
        told = said.get()
        try:
            if told.error is not None:
                raise told.error
            if isinstance(told.event, Step):
                yield replace(told.event, picture=told.index)
            elif isinstance(told.event, Picture):
                early[told.index] = told.event
            else:
                running -= 1
        finally:  # also where the reader ends in the middle
            told.taken.set()
        while place in early:
            yield early.pop(place)
            place += 1
