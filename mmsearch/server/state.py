"""What all requests of one server share, and how an endpoint gets at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Query, Request

from mmsearch.engine import Engine
from mmsearch.mapping import Map
from mmsearch.server.metrics import Metrics
from mmsearch.server.problems import ProblemError
from mmsearch.server.runs import Runs
from mmsearch.server.settings import ServerSettings
from mmsearch.server.thumbnails import Thumbnails
from mmsearch.server.upload_store import Uploads
from mmsearch.server.workers import Workers

SLOW_JOBS = 2  # at a time: they compare everything with everything, and searches go on beside them


@dataclass(slots=True)
class State:
    """engines: name -> open collection, the first one is the usual one. watching: name -> `events` or `polling`. maps:
    name -> the map that was sent last, and in JSON, which takes a while for 100,000 images. stopping: whether the
    server is about to end, so that endless answers do."""

    engines: Mapping[str, Engine]
    settings: ServerSettings
    workers: Workers
    slow: Workers
    thumbnails: Thumbnails
    uploads: Uploads
    runs: Runs
    metrics: Metrics
    maps: dict[str, tuple[Map, bytes]] = field(default_factory=dict)
    watching: dict[str, str] = field(default_factory=dict)
    stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Served:
    """The collection of one request."""

    name: str
    engine: Engine
    state: State


def make(engines: Mapping[str, Engine], settings: ServerSettings) -> State:
    return State(
        engines,
        settings,
        Workers(settings.workers, settings.request_seconds, "worker"),
        Workers(SLOW_JOBS, settings.request_seconds, "slow"),
        Thumbnails(settings.limits),
        Uploads(settings.uploads_megabytes * 1e6),
        Runs(),
        Metrics(),
    )


def state_of(request: Request) -> State:
    found: State = request.app.state.server
    return found


def chosen(
    state: Annotated[State, Depends(state_of)],
    collection: Annotated[
        str | None, Query(description="The name of a served collection; without it, the first one.", max_length=200)
    ] = None,
) -> Served:
    name = next(iter(state.engines)) if collection is None else collection
    if name not in state.engines:
        there = ", ".join(state.engines)
        raise ProblemError(404, f"There is no collection {name[:80]!r} here; there are: {there}.")
    return Served(name, state.engines[name], state)


Shared = Annotated[State, Depends(state_of)]
Collection = Annotated[Served, Depends(chosen)]
