"""/saved: queries that people keep under a name, the same that `mmsearch saved` shows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from mmsearch import query as queries
from mmsearch.server import answers, shapes
from mmsearch.server.problems import ProblemError
from mmsearch.server.replies import reply
from mmsearch.server.search import asked
from mmsearch.server.settings import API
from mmsearch.server.state import Collection, Served

router = APIRouter(prefix=API, tags=["saved"])

Name = Annotated[str, Path(min_length=1, max_length=200)]


@router.get("/saved", response_model=list[answers.Saved])
async def all_saved(served: Collection) -> Response:
    """All saved queries, by name."""

    def job() -> Response:
        kept = served.engine.saved_queries()
        return reply([{"name": name, "query": queries.to_json(one)} for name, one in kept.items()])

    return await served.state.workers.run(job)


@router.get("/saved/{name:path}", response_model=answers.Saved)
async def saved(name: Name, served: Collection) -> Response:
    """One saved query."""

    def job() -> Response:
        return reply({"name": name, "query": _kept(served, name)})

    return await served.state.workers.run(job)


@router.put("/saved/{name:path}", response_model=answers.Saved)
async def save(name: Name, query: shapes.QueryShape, served: Collection) -> Response:
    """Keep a query under a name, in place of the one that had it. Uploads are not kept."""

    def job() -> Response:
        served.engine.save_query(name, asked(query, served.state))
        return reply({"name": name, "query": _kept(served, name)})

    return await served.state.workers.run(job)


@router.delete("/saved/{name:path}", status_code=204)
async def forget(name: Name, served: Collection) -> Response:
    """Forget a saved query."""

    def job() -> Response:
        _kept(served, name)
        served.engine.forget_query(name)
        return Response(status_code=204)

    return await served.state.workers.run(job)


def _kept(served: Served, name: str) -> dict[str, Any]:
    kept = served.engine.saved_queries()
    if name not in kept:
        raise ProblemError(404, f"There is no saved query {name!r}; there are: {', '.join(kept) or 'none'}.")
    return queries.to_json(kept[name])
