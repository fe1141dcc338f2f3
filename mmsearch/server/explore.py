"""POST /facets: what satisfies filters, counted. GET /map: a place for each image, computed as a run."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, Request, Response

from mmsearch.mapping import Map
from mmsearch.server import answers, shapes
from mmsearch.server.replies import packed, reply, to_bytes
from mmsearch.server.run_endpoints import start_run
from mmsearch.server.search import filters_of
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served
from mmsearch.types import Count, Facets

router = APIRouter(prefix=API, tags=["explore"])


@router.post("/facets", response_model=answers.Facets)
async def facets(order: shapes.FacetsOrder, served: Collection, request: Request) -> Response:
    """The images that satisfy filters, counted by month, folder, camera, tag, format and place."""
    return await served.state.workers.run(
        lambda: reply(_facets(served.engine.facets(filters_of(order.filters))), request)
    )


@router.get("/map", response_model=answers.Map)
async def image_map(served: Collection, request: Request) -> Response:
    """A place for each image, those that look alike near each other. Where there is no map, or too much has changed,
    one is computed as a run, and this says so until it is there."""
    return await served.state.workers.run(lambda: _map(served, request))


def _map(served: Served, request: Request) -> Response:
    found = served.engine.map(build=False)
    if found is not None:
        sent = served.state.maps.get(served.name)
        if sent is None or sent[0] is not found:
            sent = served.state.maps[served.name] = found, to_bytes(_places(found))
        return packed(sent[1], request)
    last = next((one for one in served.state.runs.all() if (one.kind, one.collection) == ("map", served.name)), None)
    if last is not None and last.state in ("failed", "cancelled"):
        return reply(_no_map("none", last.id, last.message or "The computation of the map was cancelled."))
    if not served.engine.count():
        return reply(_no_map("none", None, "The collection has no images yet."))
    if last is None or last.ended:
        last = start_run(served, shapes.MapOrder(kind="map"))
    return reply(_no_map("computing", last.id, ""))


def _places(found: Map) -> dict[str, Any]:
    return {
        **_no_map("ready", None, ""),
        "method": found.method,
        "ids": found.ids.tolist(),
        "x": found.x.astype(float).round(4).tolist(),
        "y": found.y.astype(float).round(4).tolist(),
        "labels": [{"text": one.text, "x": round(one.x, 4), "y": round(one.y, 4)} for one in found.labels],
    }


def _no_map(state: str, run: int | None, message: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"ids": [], "x": [], "y": [], "labels": []}
    return {"state": state, "method": None, **nothing, "run": run, "message": message}


def _facets(found: Facets) -> dict[str, Any]:
    def counts(some: tuple[Count, ...], name: str = "name") -> list[dict[str, Any]]:
        return [{name: one.name, "count": one.count} for one in some]

    return {
        "total": found.total,
        "dates": counts(found.dates, "month"),
        "folders": [
            {"path": one.label, "prefix": os.fspath(one.path), "count": one.count, "depth": one.depth}
            for one in found.folders
        ],
        "cameras": counts(found.cameras),
        "tags": counts(found.tags),
        "formats": counts(found.formats),
        "places": {"count": found.places, "points": found.points},
        "without": {"date": found.without_date, "place": found.without_place, "camera": found.without_camera},
    }
