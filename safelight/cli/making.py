"""What `generate` does once it knows what is asked: open, draw, seal, report."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.cli.ahead import Ahead, open_pipeline
from safelight.cli.reveal import check_new, write_new
from safelight.console import line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle, GenerationRequest, RequestError
    from engine.inputs import Inputs
    from safelight.canvas import Canvas
    from safelight.resume import Line
    from safelight.settings import Settings
    from safelight.studio import Made, Sealed, Studio
    from vault import Vault

__all__ = ["Drawing", "Sink", "check_target", "make", "told_apart"]


@dataclass(frozen=True)
class Drawing:
    """Pictures that go in: those that steer, and what is painted on."""

    inputs: "Inputs"
    canvas: "Canvas | None"


class Sink:
    """Where the results go: a vault or files, and lines for people or programs."""

    def __init__(
        self, vault: "Vault | None", to: Path | None, json: bool, keep_going: bool, again: bool
    ) -> None:
        self.vault = vault
        self.keep_going = keep_going
        self.again = again
        self._to = to
        self._json = json
        self.finished = self.flagged = 0
        self.failures: list[Exception] = []

    def take(self, event: "Sealed | Made") -> None:
        """Write what has no record, and report what is done."""
        from safelight.studio import Made

        self.finished += 1
        where = "sealed"
        if isinstance(event, Made) and self._to is not None:
            target = self._to
            if target.is_dir():
                target = _free_name(target, event.line["seed"])
            write_new(target, event.png)
            where = str(target)
        if self._json:
            line(event.line)
        else:
            name = event.line["id"][:8] or "-"
            if event.line["flagged"]:
                where += "; the model's safety checker flagged it, so it is black"
                self.flagged += 1
            note(f"{name}  seed {event.line['seed']}  {where}")


def check_target(to: Path, pictures: int) -> None:
    """Refuse a file or folder that so many pictures without a record could not be written to: when
    they are drawn they would be lost. Raises UsageError, or OSError as writing would.
    """
    if to.is_dir():
        check_new(_free_name(to, 0))
        return
    check_new(to)
    if pictures > 1:
        raise UsageError(
            f"{to} would be one file, and {pictures} pictures are asked for",
            hint="give a folder that is there",
        )


def _free_name(folder: Path, seed: int) -> Path:
    """Give a name that no file of the folder has: several prompts may have one seed."""
    names = (f"safelight-{seed}{each}.png" for each in chain([""], (f"-{n}" for n in count(2))))
    return next(path for path in map(folder.joinpath, names) if not os.path.lexists(path))


def make(
    settings: "Settings",
    orders: list[dict[str, Any]],
    given: dict[str, Any],
    drawing: Drawing,
    sink: Sink,
    ahead: Ahead | None,
) -> None:
    """Draw and report. ahead: what loads the model of the one plain request, if that is all."""
    from safelight.addons import hashes_beside
    from safelight.checkpoints import open_model
    from safelight.orders import requests
    from safelight.resume import marks_of
    from safelight.shelf import Shelf
    from safelight.studio import Studio

    shelf = Shelf(settings.models, settings.cache)
    loaded = None if ahead is None else ahead.result()
    model = open_model(settings, shelf) if loaded is None else loaded.model
    bundle = model.bundle
    inputs = drawing.inputs
    if drawing.canvas is not None:
        inputs, size = drawing.canvas.fitted(inputs, given, bundle.manifest)
        given = given | size
    parent = "" if drawing.canvas is None else drawing.canvas.parent
    if sink.keep_going:
        orders, refused = told_apart(bundle, orders, given, sink.vault)
        sink.failures += refused
    ready = list(requests(bundle, orders, given))
    lines: list[Line] = []
    if sink.keep_going and sink.vault is not None:
        beside = hashes_beside(shelf, ready)
        marks = marks_of(orders, given, bundle.hash, inputs, beside)
        ready, lines = _left(ready, marks, sink.vault, again=sink.again)
    if not ready:
        _end(sink)
        return
    loaded = loaded or open_pipeline(settings, shelf, model, ready)
    note(f"{bundle.name} on {loaded.choice.reason}")
    _drain(Studio(loaded.pipeline, sink.vault, inputs, parent=parent), ready, lines, sink)
    _end(sink)
    if sink.flagged:
        note('hint: safety_checker = "off" in the configuration (`safelight config`) turns it off')


def told_apart(
    bundle: "Bundle", orders: list[dict[str, Any]], given: dict[str, Any], vault: "Vault | None"
) -> "tuple[list[dict[str, Any]], list[RequestError]]":
    """Tell lines that ask for something from those that the engine refuses; the latter leave an
    attempt record each, where a record can hold them.
    """
    from engine import RequestError
    from safelight.orders import requests
    from safelight.records import refused_metadata
    from vault import BadValueError, Draft, Kind

    kept: list[dict[str, Any]] = []
    refused: list[RequestError] = []
    for number, order in enumerate(orders, 1):
        try:
            list(requests(bundle, [order], given))
        except RequestError as error:
            refused.append(error)
            note(f"request {number} of {len(orders)} is refused: {error}")
            if vault is not None:
                metadata = refused_metadata(order, bundle.name, str(error))
                try:
                    vault.add([Draft(kind=Kind.ATTEMPT, metadata=metadata, blobs=())])
                except BadValueError as unfit:  # the other lines are drawn all the same
                    note(f"request {number} of {len(orders)} leaves no record: {unfit}")
        else:
            kept.append(order)
    return kept, refused


def _end(sink: Sink) -> None:
    """Raise the first failure of a file's requests, so that the exit status tells of it."""
    if sink.failures:
        note(f"{len(sink.failures)} requests failed; the first one's reason:")
        raise sink.failures[0]


def _left(
    ready: "list[GenerationRequest]", marks: list[int], vault: "Vault", *, again: bool
) -> "tuple[list[GenerationRequest], list[Line]]":
    """Leave out what is sealed already of the lines of a file, and say so."""
    from safelight.resume import plan, sealed_lines

    planned = list(plan(ready, marks, {} if again else sealed_lines(vault)))
    total, left = (sum(each.count for each in part) for part in (ready, [r for r, _ in planned]))
    if left < total:
        note(f"{total - left} of {total} pictures are sealed already; --again makes them anew")
    return [request for request, _ in planned], [line for _, line in planned]


def _drain(
    studio: "Studio", ready: "Sequence[GenerationRequest]", lines: "Sequence[Line]", sink: Sink
) -> None:
    from engine import Step
    from safelight.interrupt import Interruption
    from safelight.progress import PictureProgress
    from safelight.studio import Failed

    total = sum(each.count for each in ready)
    with (
        Interruption() as interrupted,
        PictureProgress(total) as progress,
        # closed at once, whatever ends this: finished pictures are sealed while the vault is open
        closing(studio.run(ready, interrupted, keep_going=sink.keep_going, parts=lines)) as events,
    ):
        for event in events:
            if isinstance(event, Step):
                progress.step(event)
            elif isinstance(event, Failed):
                sink.failures.append(event.error)
                progress.reach(sum(each.count for each in ready[: event.index + 1]))
                note(f"request {event.index + 1} of {len(ready)} failed: {event.error}")
            else:
                progress.picture()
                sink.take(event)
        if interrupted():
            note(f"stopped: {sink.finished} of {total} pictures are finished and kept")
            raise KeyboardInterrupt
