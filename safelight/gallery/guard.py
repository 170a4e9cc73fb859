"""The door of the gallery: who may ask, for what, with how much, and what every answer says.

A request passes when its Host is exactly ours, no other site sent it, its cookie is a session's,
it carries the session's CSRF header and our Origin if it changes anything, and the vault is open.
"""

import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.exits import place_of
from safelight.gallery.bodies import limit_for
from safelight.gallery.gallery import Gallery
from safelight.gallery.sessions import COOKIE

__all__ = ["CSRF_HEADER", "HEADERS", "Guard", "is_navigation"]

CSRF_HEADER = "x-safelight-csrf"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
PUBLIC = ("/static/",)  # without a session; nothing in there is anybody's secret
EXCHANGE = "/session"
# With a session while the vault is locked or not there yet
UNLOCKING = ("/unlock", "/lock", "/welcome", "/static/")
QUIET_HEADER = "x-safelight-quiet"  # asked by a script on its own: nobody is there because of it
QUIET = ("/events",)
# Answered to programs that show the API's token instead of a session
BEARER = ("/sdapi/", "/v1/")
SAFE, CHANGING = ("GET", "HEAD"), ("POST",)

Page = Callable[[Request], Awaitable[Response]]


class Guard:
    """Stand before every route. stranger, locked: the pages for a browser that must go on there.

    limits: bytes a body may have, by the beginning of its path.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        gallery: Gallery,
        stranger: Page,
        locked: Page,
        limits: Mapping[str, int],
    ) -> None:
        self._app = app
        self._gallery = gallery
        self._stranger = stranger
        self._locked = locked
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here. Nothing else than HTTP is spoken."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _headers(message["headers"])}
            await send(message)

        request = Request(scope, receive)
        try:
            refusal = await self._refusal(request)
            if refusal is not None:
                await refusal(scope, receive, guarded)
                return
            limit = limit_for(scope["path"], self._limits)
            await self._app(scope, _bounded(request, receive, limit), guarded)
        except Exception as error:  # noqa: BLE001 - a traceback could show a prompt: only the place is said
            self._gallery.note(f"unexpected {type(error).__name__} in {place_of(error)}")
            if not started:
                answer = PlainTextResponse("This is a fault of safelight.", 500)
                await answer(scope, receive, guarded)

    async def _refusal(self, request: Request) -> Response | None:
        path: str = request.scope["path"]  # what the router sees; a URL would be parsed again
        if request.headers.getlist("host") not in [[host] for host in self._gallery.hosts]:
            return PlainTextResponse("This is not the gallery's address.", 421)
        if request.method not in SAFE + CHANGING:
            return PlainTextResponse("Only GET and POST are spoken here.", 405)
        if path.startswith(BEARER):
            return self._program_refusal(request)
        if not _from_here(request):
            # Nothing but the empty entrance: the launcher's file is a stranger to us too.
            entering = path == "/" and is_navigation(request)
            return await self._stranger(request) if entering else _forbidden()
        if request.method in CHANGING and not self._is_own(request):
            return _forbidden()
        is_public = path == EXCHANGE or (path.startswith(PUBLIC) and request.method in SAFE)
        return None if is_public else await self._browser_refusal(request)

    async def _browser_refusal(self, request: Request) -> Response | None:
        """Judge a request that needs a session, and mostly an open vault."""
        gallery, path = self._gallery, request.scope["path"]
        session = gallery.sessions.find(request.cookies.get(COOKIE, ""))
        if session is None:
            return await self._stranger(request) if is_navigation(request) else _unknown()
        request.scope["safelight.session"] = session
        if request.method in CHANGING and not _same(
            request.headers.get(CSRF_HEADER, ""), session.csrf
        ):
            return _forbidden()
        if QUIET_HEADER not in request.headers and not path.startswith(QUIET):
            gallery.touch()
        if gallery.is_locked and not path.startswith(UNLOCKING):
            return await self._locked(request) if is_navigation(request) else _unknown()
        return None

    def _is_own(self, request: Request) -> bool:
        """Say whether our own page sent a change; browsers name the origin of each of them."""
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site") == "same-origin"
        return origin == self._gallery.origin

    def _program_refusal(self, request: Request) -> Response | None:
        """Judge a program's request: the token in the header, and no web page behind it."""
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            return _forbidden()
        token = self._gallery.api_token
        if not token or self._gallery.is_locked or not _same(_shown_token(request), token):
            return _unknown()
        if request.method in CHANGING:  # whoever only asks how far it is keeps nothing open
            self._gallery.touch()
        return None


def is_navigation(request: Request) -> bool:
    """Say whether a person goes to a page, rather than a page asking for a part of itself."""
    if request.method != "GET" or "hx-request" in request.headers:
        return False
    mode = request.headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in request.headers.get("accept", "")


def _from_here(request: Request) -> bool:
    """Say whether no other site is behind a request, as far as the browser tells."""
    return request.headers.get("sec-fetch-site", "none") in {"same-origin", "none"}


def _same(shown: str, kept: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "replace"), kept.encode())


def _shown_token(request: Request) -> str:
    """Return the token that a program shows: as a bearer, or as the password of Basic, which is
    all that many clients can say; the user's name does not matter then.
    """
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            value = b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except ValueError:
            return ""
    return value.strip()


def _forbidden() -> Response:
    return PlainTextResponse("This did not come from the gallery's own page.", 403)


def _unknown() -> Response:
    return PlainTextResponse("Not here, or locked.", 401)


def _headers(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = {name.encode(): value.encode() for name, value in HEADERS.items()}
    kept = [(name, value) for name, value in given if name.lower() not in ours]
    return [*kept, *ours.items()]


def _bounded(request: Request, receive: Receive, limit: int) -> Receive:
    """Count a body's bytes as they come; raises HTTPException 413 beyond the limit."""
    stated = request.headers.get("content-length", "0")
    over = not stated.isdigit() or len(stated) > 15 or int(stated) > limit
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        if over:
            raise HTTPException(413, f"at most {limit} bytes are taken here")
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"at most {limit} bytes are taken here")
        return message

    return bounded
