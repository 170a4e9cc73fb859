"""Pages and fragments from templates, with what every page needs."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from safelight.gallery.sessions import View

__all__ = ["gallery_of", "page", "view_of"]

FOLDER = Path(__file__).parent / "templates"
NAVIGATION = (
    ("Gallery", "/"),
    ("Albums", "/albums"),
    ("Studio", "/studio"),
    ("Trash", "/trash"),
    ("Import", "/import"),
    ("Settings", "/settings"),
)


def gallery_of(request: Request) -> "Gallery":
    """Return the gallery's state."""
    return request.app.state.gallery


def view_of(request: Request) -> "View":
    """Return what this browser is looking at; behind the guard every browser has a session."""
    return request.scope["safelight.session"].view


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template of the folder, a whole page or a fragment. All values are escaped."""
    gallery = gallery_of(request)
    session = request.scope.get("safelight.session")
    known = {route.path for route in request.app.routes}
    text = (
        _environment()
        .get_template(template)
        .render(
            csrf="" if session is None else session.csrf,
            locked=session is None or gallery.is_locked,
            navigation=[entry for entry in NAVIGATION if entry[1] in known],
            path=request.url.path,
            blur=session is not None and session.view.blur,
            incognito=session is not None and session.view.incognito,
            idle_seconds=round(gallery.idle_seconds),
            **values,
        )
    )
    return HTMLResponse(text, status)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
