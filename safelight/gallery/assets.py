"""The files beside the pages: a fixed table of style sheet, scripts and vendored scripts."""

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["asset_routes"]

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
}


def asset_routes() -> list[Route]:
    """Give the route of the static files. They are listed once: no path reaches the disk."""
    table: Mapping[str, Path] = {
        path.relative_to(FOLDER).as_posix(): path
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES
    }

    def asset(request: Request) -> Response:
        path = table.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type=TYPES[path.suffix])

    return [Route("/static/{name:path}", asset, name="static")]
