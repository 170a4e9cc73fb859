"""Make what a program asked for, wait for it, and let the pictures go by the one door."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool

from safelight.disclose import disclose
from safelight.exits import ApplicationError, UsageError
from safelight.gallery.making import making_of
from safelight.workshop import Order, State

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from safelight.gallery.making import Making
    from safelight.workshop import Job
    from vault import Record, Vault

__all__ = ["MAX_COUNT", "Made", "UnmadeError", "make", "models_of", "names_of", "usual_model"]

MAX_COUNT: Final = 16  # pictures of one call: an answer is held in memory whole
LOOK_EVERY: Final = 0.05  # seconds between two looks at a job; no thread waits meanwhile
GOING: Final = (State.WAITING, State.RUNNING, State.OFFERED)


class UnmadeError(ApplicationError):
    """The job failed; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A picture that was made and left: its record, and its PNG as it is sealed."""

    record: "Record"
    png: bytes = field(repr=False)


async def make(gallery: "Gallery", order: Order) -> list[Made]:
    """Put an order into the queue and give its pictures when it has ended.

    A job that was cancelled gives those that were finished. Raises what `Workshop.submit` raises,
    UnmadeError for a job that failed, LockedError when the vault is locked meanwhile.
    """
    count = order.fields.get("count", 1)
    if not isinstance(count, int) or count > MAX_COUNT:
        raise UsageError(f"at most {MAX_COUNT} pictures are made in one call")
    making = making_of(gallery)
    job = await run_in_threadpool(_submit, making, order)
    while job.state in GOING:
        await asyncio.sleep(LOOK_EVERY)
        if making_of(gallery) is not making:
            raise UnmadeError("the vault was locked and opened again while this was made")
        gallery.touch()  # somebody waits for it
        job = making.workshop.find(job.id)
    if job.state is State.FAILED:
        making.workshop.cancel(job.id)  # nobody would see it in the queue
        raise UnmadeError(job.reason)
    return await run_in_threadpool(_disclosed, gallery.vault, job.made)


def models_of(gallery: "Gallery") -> list[str]:
    """Name the models on the shelf that draw."""
    from safelight.workshop.cards import cards

    shelf = making_of(gallery).workshop.pipelines.shelf
    return [card.name for card in cards(shelf) if not card.scale]


def names_of(gallery: "Gallery") -> list[str]:
    """Name all that is on the shelf, without a look into it."""
    shelf = making_of(gallery).workshop.pipelines.shelf
    return [entry.name for entry in shelf.entries()]


def usual_model(gallery: "Gallery") -> str:
    """Name the model that programs get when they name none."""
    return gallery.programs_model or gallery.settings["model"]


def _submit(making: "Making", order: Order) -> "Job":
    lists = {each.name: each.lines for each in making.kit.wordlists()}
    return making.workshop.submit(
        Order(model=order.model, fields=order.fields, canvas=order.canvas, lists=lists)
    )


def _disclosed(vault: "Vault", ids: tuple[str, ...]) -> list[Made]:
    made: list[Made] = []
    for record_id in ids:
        disclose(
            vault,
            record_id,
            lambda record, data: made.append(Made(record=record, png=bytes(data))),
            way="api",
        )
    return made
