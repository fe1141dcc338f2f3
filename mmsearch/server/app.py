"""Collections -> the application: all endpoints, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from mmsearch import __version__
from mmsearch.engine import Engine
from mmsearch.server import (
    answers,
    duplicates,
    explore,
    export,
    health,
    images,
    labels,
    observing,
    openapi,
    page,
    problems,
    run_endpoints,
    saved,
    search,
    state,
    uploads,
)
from mmsearch.server.guard import Guard
from mmsearch.server.observing import Observer
from mmsearch.server.settings import ServerSettings
from mmsearch.server.watches import Watches

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
        lifespan=_life,
        responses={"4XX": {"model": answers.Problem}, "5XX": {"model": answers.Problem}},
    )
    app.state.server = state.make(engines, settings)
    problems.add_to(app)
    for part in (health, search, uploads, images, labels, saved, duplicates, explore, export, run_endpoints):
        app.include_router(part.router)
    app.include_router(observing.router)
    page.add_to(app)
    openapi.add_to(app)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Observer, metrics=app.state.server.metrics)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    shared: state.State = app.state.server
    following = Watches(shared) if shared.settings.watch else None
    if following is not None:
        following.start()
    yield
    shared.runs.cancel_all()
    if following is not None:
        await asyncio.to_thread(following.stop)
