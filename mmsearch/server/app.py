"""Collections -> the application: all endpoints, behind the guard."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from mmsearch import __version__
from mmsearch.engine import Engine
from mmsearch.server import health, images, page, problems, search, shapes, state
from mmsearch.server.guard import Guard
from mmsearch.server.settings import API, ServerSettings

DESCRIPTION = "Find pictures by meaning. Errors are application/problem+json; `detail` is one line for people."


def create_app(engines: Mapping[str, Engine], settings: ServerSettings | None = None) -> FastAPI:
    """engines: name -> open collection, which stays the caller's to close; the first is used where none is named."""
    settings = settings or ServerSettings()
    app = FastAPI(
        title="mmsearch",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # its page loads third-party scripts
        redoc_url=None,
        responses={"4XX": {"model": shapes.Problem}, "5XX": {"model": shapes.Problem}},
    )
    app.state.server = state.make(engines, settings)
    problems.add_to(app)
    for part in (health, search, images):
        app.include_router(part.router, prefix=API)
    page.add_to(app)
    app.add_middleware(Guard, settings=settings)
    return app
