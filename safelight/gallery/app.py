"""Put the gallery together: pages, static files, the guard before all of them, the idle lock."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from safelight.exits import ApplicationError
from safelight.gallery.assets import asset_routes
from safelight.gallery.faults import http_fault, known_fault
from safelight.gallery.guard import Guard
from safelight.gallery.pages.entrance import closed_page, stranger_page
from safelight.gallery.reader import PictureReader
from vault import VaultError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from safelight.gallery.gallery import Gallery

__all__ = ["PAGES", "create_app"]

# The page modules, each with its `routes`
PAGES = (
    "entrance",
    "welcome",
    "grid",
    "pictures",
    "detail",
    "compare",
    "labels",
    "albums",
    "shows",
    "studio",
    "queue",
    "kit",
    "share",
    "importing",
    "sdapi",
    "images_api",
    "trash",
    "settings",
)
TICK = 1.0  # seconds between two looks at the idle clock


def create_app(gallery: "Gallery", pages: Sequence[str] = PAGES) -> Starlette:
    """Return the application over one gallery state. pages: names of modules in `pages`."""
    from engine.errors import EngineError

    modules = [import_module(f"safelight.gallery.pages.{name}") for name in pages]
    routes: list[BaseRoute] = [route for module in modules for route in module.routes]
    limits: Mapping[str, int] = {
        path: limit
        for module in modules
        for path, limit in getattr(module, "body_limits", {}).items()
    }
    guard = Middleware(
        Guard, gallery=gallery, stranger=stranger_page, locked=closed_page, limits=limits
    )
    known = dict.fromkeys((VaultError, ApplicationError, EngineError), known_fault)
    app = Starlette(
        routes=[*routes, *asset_routes()],
        middleware=[guard],
        exception_handlers={HTTPException: http_fault, **known},
        lifespan=_lifespan,
    )
    app.state.gallery = gallery
    app.state.reader = PictureReader(gallery)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    gallery: Gallery = app.state.gallery

    async def watch() -> None:
        while True:
            await asyncio.sleep(TICK)
            await run_in_threadpool(gallery.lock_if_idle)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await run_in_threadpool(gallery.lock)
