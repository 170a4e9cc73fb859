"""The queue on the studio's page: what happens as server-sent events, and its buttons."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from safelight.gallery.making import making_of
from safelight.gallery.pages.pictures import media_type, picture, thumbnail
from safelight.gallery.rendering import gallery_of, page
from safelight.workshop.job import Job, State

if TYPE_CHECKING:
    from safelight.workshop import Workshop
    from safelight.workshop.feed import News

__all__ = ["routes"]

QUIET = 15.0  # seconds without news after which a sign of life is sent
MAX_LISTENERS = 16
SHOWN = 50  # jobs that the page lists
LATELY = 12  # pictures of the vault that are shown before one is made here


async def events(request: Request) -> Response:
    """Tell what happens in the workshop, as it happens, until the vault is locked."""
    workshop = (await run_in_threadpool(making_of, gallery_of(request))).workshop
    if workshop.feed.listeners >= MAX_LISTENERS:
        raise HTTPException(503, "too many pages listen already; close some")
    return StreamingResponse(_told(workshop), media_type="text/event-stream")


def queue(request: Request) -> Response:
    """Show the queue, as a part of the page."""
    workshop = making_of(gallery_of(request)).workshop
    jobs = workshop.jobs
    return page(
        request,
        "queue.html",
        jobs=jobs[:SHOWN],
        more=max(0, len(jobs) - SHOWN),
        paused=workshop.paused,
        offered=sum(job.state is State.OFFERED for job in jobs),
        left=time_left(workshop.seconds_left()),
        at_work=any(job.is_alive for job in jobs),
        stays=workshop.keeps_open,
    )


def standing(request: Request) -> Response:
    """Say how the queue stands, as JSON: what a script shows when it begins to listen."""
    workshop = making_of(gallery_of(request)).workshop
    running = next((job for job in workshop.jobs if job.state is State.RUNNING), None)
    left = workshop.seconds_left()
    made = [record for job in workshop.ended for record in job.made]
    made += [record for job in workshop.jobs for record in job.made]
    if not made:
        lately = making_of(gallery_of(request)).vault.list(limit=LATELY)
        made = [record.id for record in lately][::-1]
    unsealed = workshop.unsealed
    return JSONResponse(
        {
            "running": None if running is None else _step(running, left),
            "waiting": sum(job.state is State.WAITING for job in workshop.jobs),
            "paused": workshop.paused,
            "made": made[-SHOWN:],
            "unsealed": [each for each in made[-SHOWN:] if unsealed.find(each)],
        }
    )


def preview(request: Request) -> Response:
    """Give the newest preview."""
    number, data = making_of(gallery_of(request)).workshop.preview
    if not number:
        raise HTTPException(404)
    return Response(data, media_type="image/webp")


async def made_thumbnail(request: Request) -> Response:
    """Give the thumbnail of a picture that was made, sealed or not."""
    return _unsealed(request, "thumbnail") or await thumbnail(request)


async def made_picture(request: Request) -> Response:
    """Give a picture that was made, sealed or not."""
    return _unsealed(request, "picture") or await picture(request)


def _unsealed(request: Request, name: str) -> Response | None:
    making = gallery_of(request).making.made
    draft = making and making.workshop.unsealed.find(request.path_params["record_id"])
    if not draft:
        return None
    blob = next(each for each in draft.blobs if each.name == name)
    data = bytes(blob.data)
    return Response(data, media_type=media_type(data[:12]))


def change_queue(request: Request) -> Response:
    """Pause the whole queue, let it go on, resume what was offered, cancel all; or let the vault
    stay open until it is done, or not.
    """
    workshop = making_of(gallery_of(request)).workshop
    verbs = {
        "pause": workshop.pause,
        "unpause": workshop.unpause,
        "resume": workshop.resume_all,
        "cancel": workshop.cancel_all,
        "stay": partial(workshop.stay_open, until_done=True),
        "leave": partial(workshop.stay_open, until_done=False),
    }
    verb = verbs.get(request.path_params["verb"])
    if verb is None:
        raise HTTPException(404)
    verb()
    return Response(status_code=204)


def change_job(request: Request) -> Response:
    """Cancel a job, or let it wait for its turn again."""
    workshop = making_of(gallery_of(request)).workshop
    verbs = {"cancel": workshop.cancel, "resume": workshop.resume}
    verb = verbs.get(request.path_params["verb"])
    if verb is None:
        raise HTTPException(404)
    verb(request.path_params["job_id"])
    return Response(status_code=204)


def time_left(seconds: float | None) -> str:
    """Write a duration as people say it, or nothing where it is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


async def _told(workshop: "Workshop") -> AsyncIterator[str]:
    """Write news as server-sent events. The runner never waits for who listens here."""
    loop, bell = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(bell.set)

    with workshop.feed.listen(wake) as listener:
        yield "retry: 1000\n\n"
        while True:
            for news in listener.take():
                yield _written(news)
                if news.name == "closed":
                    return
            try:
                await asyncio.wait_for(bell.wait(), QUIET)
            except TimeoutError:
                yield ": here\n\n"
            bell.clear()


def _written(news: "News") -> str:
    data = dict(news.data)
    if "left" in data:
        data["left"] = time_left(data["left"])
    return f"event: {news.name}\ndata: {json.dumps(data)}\n\n"


def _step(job: Job, left: float | None) -> dict[str, Any]:
    return {
        "job": job.id,
        "done": job.done,
        "behind": job.behind,
        "count": job.count,
        "in_hand": job.in_hand,
        "step": job.step,
        "steps": job.steps,
        "preview": 0,
        "left": time_left(left),
    }


# Under /events: asked for by the page's scripts, so that nobody is taken to be there.
routes: Sequence[BaseRoute] = (
    Route("/events", events),
    Route("/events/queue", queue),
    Route("/events/standing", standing),
    Route("/events/preview/{number:int}", preview),
    Route("/events/thumbnail/{record_id}", made_thumbnail),
    Route("/events/picture/{record_id}", made_picture),
    Route("/studio/queue/{verb}", change_queue, methods=["POST"]),
    Route("/studio/job/{job_id}/{verb}", change_job, methods=["POST"]),
)
