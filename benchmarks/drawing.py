"""Measures a scenario of pictures: loads, turns, the gate; one process for each configuration."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.children import Child
from benchmarks.document import Configuration, Quality, figure_of
from benchmarks.errors import WorkerError
from benchmarks.gate import judge
from benchmarks.hardware import named, plain, reason
from benchmarks.runners import DrawingRunner
from benchmarks.scenarios import PictureScenario
from benchmarks.turns import PICTURE, Budget, Stopped, take_turns

__all__ = ["Candidate", "Drawing", "Drawn", "Reference"]

UInt8 = NDArray[np.uint8]
LOAD_COLD: Final = "load, cold"
LOAD_WARM: Final = "load, warm"
LOAD_ONCE: Final = "load"
COMPILE: Final = "compile"
PEER: Final = "peer"
REFERENCE: Final = "the reference"
HOUR: Final = 3600.0
ANSWER: Final = (
    240.0  # seconds that a process has for one answer at least: some compile for minutes
)
# Caching loads: the first of a process' life compiles into an empty folder, the next one reads it.
_LOADS: Final = ((True, LOAD_COLD), (False, LOAD_WARM))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One configuration before it is started. hello: what its process is told first; `cache`,
    `vault` and `batch` are added. kind: safelight or peer. label: empty for what it says itself.
    compared: it draws from the same noise, so that the gate holds.
    """

    command: Sequence[str]
    hello: Mapping[str, Any]
    batch: int = 1
    kind: str = "safelight"
    label: str = ""
    note: str = ""
    compared: bool = True
    folder: Path | None = None
    environ: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The pictures that others are compared with, by turn, and who drew them."""

    name: str
    pictures: Mapping[int, UInt8]


@dataclass(slots=True)
class Drawn:
    """What came of it. skipped: label -> why."""

    configurations: list[Configuration] = field(default_factory=list[Configuration])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    complete: bool = True


@dataclass(slots=True)
class _Started:
    candidate: Candidate
    cache: Path
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    loads: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    runner: DrawingRunner | None = None
    ended: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        if self.candidate.label:
            return self.candidate.label
        name = f"{self.facts['backend']} {self.facts['precision']} batch {self.candidate.batch}"
        devices = self.facts.get("devices", 1)
        return f"{name} on {devices} devices" if devices > 1 else name


class Drawing:
    """Measures candidates of one scenario side by side.

    work: an empty folder, for caches and vaults. stop: the wish to stop. say: tells a person.
    limit: seconds that all turns may take together.
    """

    def __init__(
        self,
        scenario: PictureScenario,
        work: Path,
        *,
        stop: Callable[[], bool],
        say: Callable[[str], None],
        limit: float,
    ) -> None:
        self._scenario = scenario
        self._work = work
        self._stop = stop
        self._say = say
        self._limit = limit

    def measure(
        self, candidates: Sequence[Candidate], reference: Candidate, *, rounds: int, random: bool
    ) -> Drawn:
        """Measure all; what cannot be started is skipped, with its reason.

        reference: draws the gate's pictures where no candidate computes in fp32 on its back end.
        """
        drawn = Drawn()
        started = [_Started(each, self._work / f"cache-{i}") for i, each in enumerate(candidates)]
        samples: Mapping[str, Mapping[str, list[float]]] = {}
        compared: Reference | None = None
        try:
            started, compared = self._load(started, drawn, reference)
            if started:
                runners = {each.name: each.runner for each in started if each.runner}
                budget = Budget(rounds=rounds, warmup=1, limit=self._limit)
                turns = take_turns(runners, budget, stop=self._stop, done=self._tell)
                samples, drawn.complete = turns.samples, turns.complete
        except Stopped:
            drawn.complete = False
        for each in started:
            self._end(each)
            if each.facts:
                taken = samples.get(each.name, {})
                drawn.configurations.append(self._describe(each, taken, compared, random))
        return drawn

    def _load(
        self, started: list[_Started], drawn: Drawn, reference: Candidate
    ) -> tuple[list[_Started], Reference | None]:
        """Start every process cold and warm, in turn; the last warm one stays. Before any stays,
        the gate's pictures are drawn: two large models need not lie in memory side by side.
        """
        alive, compared = list(started), None
        for number in range(self._scenario.loads):
            for cold, stage in _LOADS:
                last = number == self._scenario.loads - 1 and not cold
                if last and alive and not any(_equals(each, reference) for each in alive):
                    compared = self._reference(reference, drawn)
                for each in list(alive):
                    if each.candidate.kind == PEER and not last:
                        continue  # started once: some take minutes
                    try:
                        self._start(each, cold=cold, stage=stage, stays=last)
                    except WorkerError as error:
                        alive.remove(each)
                        words = f"{error}; {error.hint}" if error.hint else str(error)
                        label = each.candidate.label or " ".join(
                            str(each.candidate.hello[name]) for name in ("device", "precision")
                        )
                        drawn.skipped[label] = reason(words)
                        self._say(f"{label} is left out: {words}")
        kept: dict[str, _Started] = {}
        for each in alive:
            if each.name in kept:
                drawn.skipped[f"{each.name}, again"] = "it was asked for twice"
                self._end(each)
            else:
                kept[each.name] = each
        for each in kept.values():
            if _equals(each, reference) and each.runner is not None:
                compared = Reference(name=each.name, pictures=each.runner.pictures)
        if kept and compared is None and REFERENCE not in drawn.skipped:
            compared = self._reference(reference, drawn)  # its equal fell out at the last start
        return list(kept.values()), compared

    def _start(self, each: _Started, *, cold: bool, stage: str, stays: bool) -> None:
        if cold:
            shutil.rmtree(each.cache, ignore_errors=True)
        child = self._child(each.candidate)
        runner = DrawingRunner(child, self._scenario)
        try:
            each.facts = child.ask(self._hello(each.candidate, each.cache))
            seconds = each.facts["seconds"]
            name = LOAD_ONCE if each.candidate.kind == PEER else stage
            each.loads.setdefault(name, []).append(seconds["load"])
            if cold and seconds.get("compile"):
                each.loads.setdefault(COMPILE, []).append(seconds["compile"])
            if stays:
                each.runner = runner
            else:
                runner.end()
        finally:
            if each.runner is not runner:
                child.close()
        self._say(f"{each.name}: {name} {seconds['load']:.2f} s")

    def _child(self, candidate: Candidate) -> Child:
        return Child(
            candidate.command,
            stop=self._stop,
            folder=candidate.folder,
            environ=candidate.environ,
            limit=max(self._limit, ANSWER),
        )

    def _hello(self, candidate: Candidate, cache: Path) -> dict[str, Any]:
        cache.mkdir(parents=True, exist_ok=True)
        vault = cache.with_name(f"{cache.name}-vault")
        shutil.rmtree(vault, ignore_errors=True)
        more = {"cache": str(cache), "vault": str(vault), "batch": candidate.batch}
        return {"scenario": asdict(self._scenario), **candidate.hello, **more}

    def _reference(self, reference: Candidate, drawn: Drawn) -> Reference | None:
        """Let a process of its own draw the gate's pictures."""
        child = self._child(reference)
        runner = DrawingRunner(child, self._scenario)
        try:
            facts = child.ask(self._hello(reference, self._work / "cache-reference"))
            name = f"{facts['backend']} {facts['precision']}"
            self._say(f"{name} draws what the others are compared with")
            for number in range(self._scenario.gate):
                runner.turn(number)
        except WorkerError as error:
            drawn.skipped[REFERENCE] = reason(str(error))
            self._say(f"there is no reference, and no picture is judged: {error}")
            return None
        finally:
            child.close()
        return Reference(name=name, pictures=runner.pictures)

    def _tell(self, name: str, number: int) -> None:
        self._say(f"{name}: {'warm-up' if number < 0 else f'turn {number + 1}'}")

    def _end(self, each: _Started) -> None:
        """End the process; one that is at work when somebody stopped is not asked any more."""
        if each.runner is None:
            return
        with suppress(WorkerError, Stopped):
            if not self._stop():
                each.ended = each.runner.end()
        each.runner.close()

    def _describe(
        self,
        each: _Started,
        samples: Mapping[str, list[float]],
        reference: Reference | None,
        random: bool,
    ) -> Configuration:
        facts, ended = each.facts, each.ended
        runner = each.runner
        joules = runner.joules if runner else []
        pictures = samples.get(PICTURE)
        stages = {
            name: figure_of(seconds) for name, seconds in (each.loads | dict(samples)).items()
        }
        return Configuration(
            name=each.name,
            kind="peer" if each.candidate.kind == PEER else "safelight",
            backend=facts["backend"],
            device=plain(facts["device"]),
            precision=facts["precision"],
            batch=each.candidate.batch,
            threads=facts.get("threads", 0),
            libraries={name: named(version) for name, version in facts["libraries"].items()},
            stages=stages,
            pictures_an_hour=round(HOUR / median(pictures), 2) if pictures else None,
            peak_memory=ended.get("peak_memory"),
            peak_gpu_memory=ended.get("peak_gpu_memory"),
            joules_a_picture=round(fmean(joules), 3) if joules else None,
            cache_bytes=_size(each.cache) if each.candidate.kind == "safelight" else None,
            quality=self._quality(each, reference, random),
            note=each.candidate.note,
        )

    def _quality(self, each: _Started, reference: Reference | None, random: bool) -> Quality | None:
        if reference is None or each.runner is None or each.name == reference.name:
            return None
        if not each.candidate.compared:
            return None
        mine, theirs = each.runner.pictures, reference.pictures
        both = sorted(mine.keys() & theirs.keys())
        if not both:
            return None
        found = judge(
            [mine[n] for n in both],
            [theirs[n] for n in both],
            each.facts["precision"],
            random=random,
        )
        return Quality(
            psnr=round(found.psnr, 2),
            ssim=round(found.ssim, 4),
            least_psnr=found.bound.psnr,
            least_ssim=found.bound.ssim,
            pictures=found.pictures,
            reference=reference.name,
            passed=found.passed,
        )


def _equals(each: _Started, reference: Candidate) -> bool:
    """Say whether a configuration draws what the reference would. A peer never does; of one that
    was not started yet nothing is known.
    """
    candidate, facts = each.candidate, each.facts
    own = candidate.kind != PEER and candidate.batch == 1 and bool(facts)
    exact = own and facts["precision"] == "fp32"
    return exact and facts["backend"] == reference.hello["device"]


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
