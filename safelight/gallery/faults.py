"""Turn what can go wrong into an answer: one sentence, a status, and nothing of what was asked."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from safelight.exits import ExitStatus, exit_status
from safelight.gallery.guard import is_navigation
from safelight.gallery.rendering import gallery_of, page
from vault import LockedError

__all__ = ["http_fault", "known_fault", "sentence"]

# Which HTTP status says what the exit status of the same error would
_STATUS = {
    ExitStatus.USAGE: 422,
    ExitStatus.LOCKED: 401,
    ExitStatus.NOT_FOUND: 404,
    ExitStatus.STORAGE: 507,
    ExitStatus.MODEL: 422,
    ExitStatus.DEVICE: 503,
}


def sentence(error: BaseException) -> str:
    """Give an error's message with its hint, for people."""
    hint = getattr(error, "hint", "")
    return f"{error} ({hint})" if hint else str(error)


async def http_fault(request: Request, error: Exception) -> Response:
    """Answer an HTTPException: a page for people, a sentence for scripts."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = error.detail if isinstance(error, HTTPException) else ""
    if not text or text == HTTPStatus(status).phrase:
        text = "There is nothing here." if status == 404 else HTTPStatus(status).phrase + "."
    return _answer(request, status, text)


async def known_fault(request: Request, error: Exception) -> Response:
    """Answer an error of the vault, the engine or the application with its own sentence."""
    status = _STATUS.get(exit_status(error), 500)
    gallery = gallery_of(request)
    if isinstance(error, LockedError) and not gallery.is_locked:
        gallery.lock()  # the vault closed itself
    return _answer(request, status, "Not here, or locked." if status == 401 else sentence(error))


def _answer(request: Request, status: int, text: str) -> Response:
    if is_navigation(request):
        return page(request, "fault.html", status=status, text=text)
    return PlainTextResponse(text, status)
