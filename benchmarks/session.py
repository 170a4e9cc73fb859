"""One run of one scenario: room is looked for, it is measured, and a signed result comes out."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.children import module
from benchmarks.document import Configuration, Result, ScenarioRow
from benchmarks.drawing import Candidate, Drawing, Drawn
from benchmarks.errors import RoomError
from benchmarks.guards import Surroundings, disturbances
from benchmarks.hardware import describe
from benchmarks.models import Model, find_model, random_folder
from benchmarks.privacy import check_private, names_of_this_machine
from benchmarks.pseudonym import Pseudonym
from benchmarks.scenarios import GIB, PictureScenario, Scenario, VaultScenario
from safelight import __version__
from safelight.settings import Settings
from safelight.shelf import Shelf

__all__ = ["Order", "Session"]

LIMIT: Final = 3600.0  # seconds that the turns of one run may take
WORKER: Final = module("benchmarks.worker")
EXACT: Final = "onnxruntime"  # whose fp32 is the reference, where it is installed


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is asked for: every back end in every precision and batch. rounds: 0 for the row's own.
    model: a bundle's name on the shelf, or empty.
    """

    scenario: Scenario
    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("auto",)
    batches: tuple[int, ...] = (1,)
    rounds: int = 0
    model: str = ""

    @property
    def ways(self) -> int:
        """Return how many configurations these are."""
        return len(self.backends) * len(self.precisions) * len(self.batches)


@dataclass(kw_only=True)
class Session:
    """Where a run finds what it needs. say: tells a person; stop: the wish to stop."""

    settings: Settings
    say: Callable[[str], None]
    stop: Callable[[], bool]
    surroundings: Surroundings = field(default_factory=Surroundings)
    clock: Callable[[], float] = time.monotonic
    today: Callable[[], date] = lambda: datetime.now(UTC).date()
    limit: float = LIMIT

    def run(self, order: Order) -> Result:
        """Measure and give the signed result. Raises RoomError before anything is measured."""
        scenario = order.scenario
        before = self.surroundings.look()
        self._check_room(scenario, order.ways, before.memory_free)
        begin = self.clock()
        row: dict[str, Any] = {}
        if isinstance(scenario, PictureScenario):
            drawn, row = self.draw(order)
        else:
            drawn = self._keep(scenario, order.rounds)
        after = self.surroundings.look()
        return self.signed(
            scenario=ScenarioRow(
                name=scenario.name, version=scenario.version, hash=scenario.hash, **row
            ),
            partial=not drawn.complete,
            before=before,
            after=after,
            warnings=tuple(disturbances(before, after, self.clock() - begin)),
            configurations=tuple(drawn.configurations),
            skipped=drawn.skipped,
        )

    def signed(self, **parts: Any) -> Result:
        """Make the result of its parts, look for names in it, and sign it."""
        libraries: dict[str, str] = {}
        configurations: Sequence[Configuration] = parts["configurations"]
        for each in configurations:
            if each.kind != "peer":  # peers have versions of their own, in their own rows
                libraries |= each.libraries
        pseudonym = Pseudonym.of(self.settings.config.parent)
        result = Result(
            date=self.today().isoformat(),
            safelight=__version__,
            machine=describe(pseudonym, libraries),
            **parts,
        )
        check_private(result.model_dump(mode="json"), names_of_this_machine())
        return pseudonym.sign(result)

    def draw(
        self, order: Order, more: Callable[[Model], Sequence[Candidate]] = lambda _model: ()
    ) -> tuple[Drawn, dict[str, Any]]:
        """Measure a scenario of pictures; more: gives other candidates, for the model at hand."""
        scenario = order.scenario
        if not isinstance(scenario, PictureScenario):
            raise TypeError(f"{scenario.name} draws nothing")
        cache = self.settings.cache
        model = find_model(
            scenario,
            Shelf(self.settings.models, cache),
            cache,
            name=order.model,
            memory=self.surroundings.memory_free(),
            say=self.say,
        )
        with self.workplace() as work:
            hello = {"bundle": str(model.path), "hashes": str(cache / "hashes.json")}
            candidates = [
                Candidate(
                    command=WORKER,
                    hello=hello | {"device": device, "precision": precision},
                    batch=batch,
                )
                for device in order.backends
                for precision in order.precisions
                for batch in order.batches
            ]
            exact = EXACT if find_spec(EXACT) is not None else "openvino"
            reference = Candidate(
                command=WORKER, hello=hello | {"device": exact, "precision": "fp32"}
            )
            drawing = Drawing(scenario, work, stop=self.stop, say=self.say, limit=self.limit)
            drawn = drawing.measure(
                [*candidates, *more(model)],
                reference,
                rounds=order.rounds or scenario.rounds,
                random=model.random,
            )
        size = sum(each.stat().st_size for each in model.path.rglob("*") if each.is_file())
        return drawn, {"random_weights": model.random, "bundle_bytes": size}

    def _keep(self, scenario: Scenario, rounds: int) -> Drawn:
        from benchmarks.keeping import keep

        if not isinstance(scenario, VaultScenario):
            raise TypeError(f"{scenario.name} keeps nothing")
        with self.workplace() as work:
            return keep(
                scenario, work, rounds=rounds or scenario.rounds, stop=self.stop, say=self.say
            )

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Give an empty folder in the cache, which is removed at the end. What is in it is sealed,
        or a library's compiled model.
        """
        work = self.settings.cache / "bench" / f"run-{os.getpid()}"
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _check_room(self, scenario: Scenario, ways: int, free: int) -> None:
        """Raise RoomError where the memory does not hold all configurations side by side."""
        needed = scenario.memory * ways
        if isinstance(scenario, PictureScenario) and scenario.building:
            built = random_folder(self.settings.cache, scenario).exists()
            self.say(
                f"{scenario.name} takes about {needed / GIB:.0f} GiB of memory"
                + (
                    ""
                    if built
                    else f", and {scenario.building / GIB:.0f} GiB once to make its model"
                )
            )
        if needed > free:
            many = f" for {ways} configurations side by side" if ways > 1 else ""
            raise RoomError(
                f"{scenario.name} needs {needed / GIB:.1f} GiB of memory{many};"
                f" {free / GIB:.1f} GiB are free",
                hint="close other programs, or measure fewer configurations at a time",
            )
