"""Errors as programs expect them: JSON, with the same sentence that a person would get."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.errors import EngineError
from safelight.exits import ApplicationError, ExitStatus, exit_status
from safelight.gallery.faults import sentence
from vault import LockedError, VaultError

__all__ = ["Endpoint", "answering", "object_of"]

Endpoint = Callable[[Request], Awaitable[Response]]
_STATUS = {
    ExitStatus.USAGE: 400,
    ExitStatus.LOCKED: 401,
    ExitStatus.NOT_FOUND: 404,
    ExitStatus.MODEL: 400,
    ExitStatus.DEVICE: 503,
    ExitStatus.STORAGE: 507,
}


def answering(body: Callable[[int, str], Mapping[str, Any]], endpoint: Endpoint) -> Endpoint:
    """Let an endpoint answer its errors as JSON. body: makes it of a status and a sentence."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HTTPException as error:
            return JSONResponse(body(error.status_code, error.detail), error.status_code)
        except LockedError:
            return JSONResponse(body(401, "Not here, or locked."), 401)
        except (ApplicationError, EngineError, VaultError) as error:
            status = _STATUS.get(exit_status(error), 500)
            return JSONResponse(body(status, sentence(error)), status)

    return answered


def object_of(value: Any) -> dict[str, Any]:
    """Give a JSON object; raises HTTPException 400 for any other value."""
    if not isinstance(value, dict):
        raise HTTPException(400, "this takes a JSON object")
    return value
