"""POST /facets: what satisfies filters, counted."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter, Request, Response

from mmsearch.server import shapes
from mmsearch.server.replies import reply
from mmsearch.server.search import filters_of
from mmsearch.server.state import Collection
from mmsearch.types import Count, Facets

router = APIRouter(tags=["explore"])


@router.post("/facets", response_model=shapes.Facets)
async def facets(order: shapes.FacetsOrder, served: Collection, request: Request) -> Response:
    """The images that satisfy filters, counted by month, folder, camera, tag, format and place."""
    return await served.state.workers.run(
        lambda: reply(_facets(served.engine.facets(filters_of(order.filters))), request)
    )


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
