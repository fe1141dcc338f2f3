"""POST /duplicates: groups of pictures that are the same, or alike."""

from __future__ import annotations

from fastapi import APIRouter, Response

from mmsearch.render import json as as_json
from mmsearch.server import answers, shapes
from mmsearch.server.replies import reply, seen
from mmsearch.server.settings import API
from mmsearch.server.state import Collection

router = APIRouter(prefix=API, tags=["duplicates"])


@router.post("/duplicates", response_model=answers.Duplicates)
async def duplicates(order: shapes.DuplicatesOrder, served: Collection) -> Response:
    """Groups of duplicates, each with the copy that is suggested to keep; nothing is deleted. Compares all with all:
    for 100,000 pictures some ten seconds, with `semantic` a minute."""

    def job() -> Response:
        found = as_json.duplicates(served.engine.duplicates(order.tiers, similarity=order.similarity))
        seen([one for group in found["groups"] for one in (group["keeper"], *group["others"])], served)
        return reply(found)

    return await served.state.slow.run(job)
