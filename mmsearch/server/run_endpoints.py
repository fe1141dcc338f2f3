"""/runs: start runs, see how far they are, as it happens (server-sent events), and cancel them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response
from fastapi.responses import StreamingResponse

from mmsearch.engine import Engine
from mmsearch.errors import UsageError
from mmsearch.render import json as as_json
from mmsearch.server import answers, shapes
from mmsearch.server.replies import below_root, reply
from mmsearch.server.runs import Run, RunKind, Work
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served, Shared, State
from mmsearch.types import IndexReport

router = APIRouter(prefix=API, tags=["runs"])

RunId = Annotated[int, Path(ge=1, le=shapes.LARGEST)]
LOOK_SECONDS = 0.25  # how often a stream looks whether there is something new
COMMENT_SECONDS = 15.0


@router.get("/runs", response_model=list[answers.Run])
async def runs(state: Shared) -> Response:
    """The runs that are waiting, at work, or have ended since the server began; the newest first."""
    return reply([one.to_json() for one in state.runs.all()])


@router.post("/runs", response_model=answers.Run, status_code=202)
async def start(order: Annotated[shapes.RunOrder, Body(discriminator="kind")], served: Collection) -> Response:
    """Start a run; it goes on whether somebody watches it or not."""
    run = await served.state.workers.run(lambda: start_run(served, order))
    return reply(run.to_json(), status=202)


@router.get("/runs/{run}", response_model=answers.Run)
async def one_run(run: RunId, state: Shared) -> Response:
    """How far a run is, or what it did."""
    return reply(state.runs.get(run).to_json())


@router.delete("/runs/{run}", response_model=answers.Run)
async def cancel(run: RunId, state: Shared) -> Response:
    """Ask a run to end; what it did so far is kept."""
    return reply(state.runs.cancel(run).to_json())


@router.get(
    "/runs/{run}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`progress` events, and `end` as the last."}},
)
async def events(run: RunId, state: Shared) -> Response:
    """The run as it goes on: an event for each change, with the run as its data."""
    found = state.runs.get(run)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(found, state), headers=headers, media_type="text/event-stream")


async def _stream(run: Run, state: State) -> AsyncIterator[str]:
    seen, quiet = -1, 0.0
    while True:
        version = run.version
        if version != seen:
            seen, quiet = version, 0.0
            ended = run.ended
            yield f"event: {'end' if ended else 'progress'}\ndata: {json.dumps(run.to_json())}\n\n"
            if ended:
                return
        elif quiet >= COMMENT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        if state.stopping():
            return
        await asyncio.sleep(LOOK_SECONDS)
        quiet += LOOK_SECONDS


# --- what each kind does ------------------------------------------------------------------------------------------


def start_run(served: Served, order: shapes.RunOrder) -> Run:
    """Check what was asked for and start it. UsageError."""
    kinds: dict[type, tuple[RunKind, Callable[[Served, Any], Work]]] = {
        shapes.IndexOrder: ("index", _index),
        shapes.EvaluateOrder: ("evaluate", _evaluate),
        shapes.TagOrder: ("tag", _tag),
        shapes.MapOrder: ("map", _map),
    }
    kind, prepare = kinds[type(order)]
    return served.state.runs.start(kind, served.name, prepare(served, order))


def _index(served: Served, order: shapes.IndexOrder) -> Work:
    folders = _inside_roots(served.engine, order.folders)

    def work(run: Run) -> dict[str, Any]:
        report = served.engine.index(
            folders,
            exclude=order.exclude,
            prune=order.prune,
            ocr=order.ocr,
            on_progress=run.tell,
            cancel=run.asked,
        )
        return report_json(report, served)

    return work


def report_json(report: IndexReport, served: Served) -> dict[str, Any]:
    """What an index run did; for others than this machine, without the places of roots."""
    data = as_json.index_report(report)
    if not served.state.settings.loopback:
        roots = served.engine.roots()
        data["left_alone"] = [{**one, "root": os.path.basename(one["root"])} for one in data["left_alone"]]
        data["notices"] = [_without_roots(one, roots) for one in data["notices"]]
    return data


def _inside_roots(engine: Engine, folders: list[str]) -> list[str]:
    """Folders as they are, links followed, each inside an indexed root."""
    roots = [os.path.realpath(root) for root in engine.roots()]
    if not roots:
        raise UsageError("This collection has no folders yet; `mmsearch index FOLDER` adds one.")
    real = []
    for folder in folders:
        if "\0" in folder:
            raise UsageError("A folder's name has no zero byte.")
        place = os.path.realpath(folder)
        if not any(place == root or place.startswith(os.path.join(root, "")) for root in roots):
            raise UsageError(f"{folder[:200]} is in no folder of this collection; `mmsearch index FOLDER` adds it.")
        real.append(place)
    return real


def _evaluate(served: Served, order: shapes.EvaluateOrder) -> Work:
    known = [space.encoder for space in served.engine.status().spaces]
    if order.rival is not None and order.rival not in known:
        there = ", ".join(dict.fromkeys(known)) or "none"
        raise UsageError(f"This collection has no vectors of {order.rival[:80]!r}; it has those of: {there}.")

    def work(run: Run) -> dict[str, Any]:
        found = served.engine.evaluate(rival=order.rival, source=order.source, on_progress=run.tell_or_end)
        return as_json.evaluation(found)

    return work


def _tag(served: Served, order: shapes.TagOrder) -> Work:
    def work(run: Run) -> dict[str, Any]:
        report = served.engine.tag(
            order.labels,
            images=order.images,
            min_probability=order.min_probability,
            on_progress=run.tell,
            cancel=run.asked,
        )
        data = as_json.tag_report(report)
        if not served.state.settings.loopback:
            roots = served.engine.roots()
            for one in data["counts"]:
                one["examples"] = [below_root(path, roots) for path in one["examples"]]
        return data

    return work


def _map(served: Served, order: shapes.MapOrder) -> Work:  # noqa: ARG001 - it has no options
    def work(run: Run) -> None:
        served.engine.map(on_progress=run.tell, cancel=run.asked)

    return work


def _without_roots(text: str, roots: tuple[FilePath, ...]) -> str:
    for root in roots:
        text = text.replace(str(root), root.name)
    return text
