"""/health, /ready, /collections, /status: whether the server lives, is fit to answer, and what it holds."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response

from mmsearch import __version__
from mmsearch.errors import MMSearchError
from mmsearch.render import json as shapes_of
from mmsearch.server import answers
from mmsearch.server.problems import ProblemError
from mmsearch.server.replies import below_root, reply
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served, Shared

_log = logging.getLogger("mmsearch.server")

router = APIRouter(prefix=API, tags=["state"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The server lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(state: Shared) -> dict[str, str]:
    """All collections open and their models are loaded; else 503, with the reason where only this machine asks: whoever
    has no token may ask, too, and reasons have paths in them."""

    def job() -> None:
        for name, engine in state.engines.items():
            try:
                engine.warm()
            except MMSearchError as error:
                _log.warning("%s is not ready: %s", name, error)
                reason = str(error) if state.settings.loopback else "the server's log says why"
                raise ProblemError(503, f"The collection {name} is not ready: {reason}") from error

    await state.workers.run(job)
    return {"status": "ready"}


@router.get("/collections", response_model=list[answers.Served])
async def collections(state: Shared) -> Response:
    """The collections that are served; `current` is the one that is used where none is named."""

    def job() -> Response:
        first = next(iter(state.engines))
        return reply(
            [{"name": name, "images": one.count(), "current": name == first} for name, one in state.engines.items()]
        )

    return await state.workers.run(job)


@router.get("/status", response_model=answers.Status)
async def status(served: Collection) -> Response:
    """What the collection holds, which files failed and why."""
    return await served.state.workers.run(lambda: reply(_status(served)))


def _status(served: Served) -> dict[str, object]:
    found = served.engine.status()
    data = shapes_of.status(found)
    if not served.state.settings.loopback:
        roots = [root.path for root in found.roots]
        data["collection"] = served.name
        data["roots"], data["away"] = (
            [root.name for root in some] for some in (roots, [root.path for root in found.roots if not root.present])
        )
        data["failed"] = [{**one, "path": below_root(one["path"], roots)} for one in data["failed"]]
    current = next((space.encoder for space in found.spaces if space.current), None)
    files = [root.files for root in found.roots]
    return {
        **data,
        "files": files,
        "encoder": current,
        "version": __version__,
        "watching": served.state.watching.get(served.name),
    }
