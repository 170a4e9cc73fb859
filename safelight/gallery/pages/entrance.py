"""In and out: the address's token for a session, the passphrase for the vault, and the lock."""

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.gallery.bodies import read_form
from safelight.gallery.faults import sentence
from safelight.gallery.pages.welcome import welcome_page
from safelight.gallery.rendering import gallery_of, page
from safelight.gallery.sessions import COOKIE
from vault import BadValueError, LockedError, VaultError, passphrase_secret

__all__ = ["closed_page", "routes", "stranger_page"]


async def stranger_page(request: Request) -> Response:
    """Show the entrance: its script gives the token of the address, if there is one, once."""
    return page(request, "enter.html", status=401)


async def closed_page(request: Request) -> Response:
    """Show what stands between a person and the pictures: the unlock page, or the first run's."""
    gallery = gallery_of(request)
    state = await run_in_threadpool(gallery.state)
    return welcome_page(request) if state == "absent" else _unlock_page(request, 401)


async def exchange(request: Request) -> Response:
    """Give a session's cookie for the token, which is used up by it."""
    gallery = gallery_of(request)
    session = gallery.sessions.exchange(dict(await read_form(request)).get("token", ""))
    if session is None:
        return PlainTextResponse("This address was used already.", 403)
    await run_in_threadpool(gallery.entered)
    answer = Response(status_code=204)
    secure = gallery.origin.startswith("https:")
    answer.set_cookie(COOKIE, session.key, httponly=True, samesite="strict", secure=secure)
    return answer


async def unlock(request: Request) -> Response:
    """Open the vault by the passphrase or by the key store, and go back to where it was locked."""
    gallery = gallery_of(request)
    if request.method == "GET":
        return RedirectResponse("/", 303) if not gallery.is_locked else await closed_page(request)
    if (wait := gallery.attempts.begin()) > 0:
        text = f"Too many wrong tries. Wait {wait + 0.5:.0f} seconds."
        return _unlock_page(request, 429, text, {"retry-after": f"{wait + 1:.0f}"})
    typed = dict(await read_form(request)).get("passphrase", "")
    try:
        secret = passphrase_secret(typed) if typed else None
        await run_in_threadpool(gallery.unlock, secret)
    except (LockedError, BadValueError) as error:
        return _unlock_page(request, 422, sentence(error))
    except VaultError as error:
        return _unlock_page(request, 500, sentence(error))
    gallery.attempts.succeeded()
    return Response(status_code=204, headers={"HX-Refresh": "true"})


async def lock(request: Request) -> Response:
    """Lock at once."""
    await run_in_threadpool(gallery_of(request).lock)
    return Response(status_code=204)


async def state(request: Request) -> Response:
    """Say how long until it locks itself: what each open page asks, to go dark in time."""
    left = gallery_of(request).idle_left()
    return JSONResponse({"idle_left": None if left == float("inf") else round(left)})


def _unlock_page(
    request: Request, status: int, text: str = "", headers: dict[str, str] | None = None
) -> Response:
    gallery = gallery_of(request)
    openers = {slot.type for slot in gallery.summary().slots}
    answer = page(
        request,
        "unlock.html",
        status=status,
        by_passphrase=bool(openers & {"passphrase", "both"}),
        by_keyring="keyring" in openers and not gallery.needs_passphrase,
        text=text,
    )
    answer.headers.update(headers or {})
    return answer


routes: Sequence[BaseRoute] = (
    Route("/session", exchange, methods=["POST"]),
    Route("/unlock", unlock, methods=["GET", "POST"]),
    Route("/lock", lock, methods=["POST"]),
    Route("/api/state", state),
)
