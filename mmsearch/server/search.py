"""POST and GET /search, and /images/{id}/similar: a query in JSON -> hits. All the searching is the engine's."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from mmsearch import query as queries
from mmsearch.errors import UsageError
from mmsearch.filters import Filters
from mmsearch.query import Match, Sort
from mmsearch.render import json as shapes_of
from mmsearch.server import answers
from mmsearch.server.replies import reply, shown
from mmsearch.server.settings import API
from mmsearch.server.shapes import LARGEST, LONGEST_TEXT, MOST_HITS, FiltersShape, QueryShape, TermShape
from mmsearch.server.state import Collection, Served, State
from mmsearch.types import Kind

router = APIRouter(prefix=API, tags=["search"])

K = Annotated[int, Query(ge=1, le=MOST_HITS)]
ImageId = Annotated[int, Path(ge=0, le=LARGEST, description="The id of an image of the collection.")]
Offset = Annotated[int, Query(ge=0, le=10**9)]


@router.post("/search", response_model=answers.Found)
async def search(query: QueryShape, served: Collection) -> Response:
    """The best answers to a query, best first."""
    return await served.state.workers.run(lambda: answer(served, asked(query, served.state)))


@router.get("/search", response_model=answers.Found, name="search_by_text")
async def search_by_text(
    served: Collection,
    q: Annotated[str, Query(max_length=LONGEST_TEXT, examples=["a red sports car"])],
    k: K = 10,
    offset: Offset = 0,
    find: Kind = "images",
    match: Match = "vectors",
    sort: Sort = "relevance",
    where: Annotated[str | None, Query(max_length=LONGEST_TEXT, examples=["width >= 1920"])] = None,
) -> Response:
    """The same for one text, for curl and for links."""

    def job() -> Response:
        terms = (queries.Term(text=q),)
        filters = Filters(where=where)
        return answer(
            served, queries.Query(terms, find=find, k=k, offset=offset, filters=filters, match=match, sort=sort)
        )

    return await served.state.workers.run(job)


@router.get("/images/{image}/similar", response_model=answers.Found)
async def similar(image: ImageId, served: Collection, k: K = 10) -> Response:
    """What looks like an image of the collection, itself first."""
    return await served.state.workers.run(lambda: answer(served, queries.Query((queries.Term(image=image),), k=k)))


def asked(shape: QueryShape, state: State) -> queries.Query:
    """A query as it was sent -> one that the engine takes: uploads become pictures. UsageError, ProblemError."""
    plain = shape.model_dump(exclude={"terms", "filters", "more", "less"})
    return queries.Query(
        tuple(_term(one, state) for one in shape.terms),
        filters=filters_of(shape.filters),
        more=tuple(shape.more),
        less=tuple(shape.less),
        **plain,
    )


def _term(shape: TermShape, state: State) -> queries.Term:
    if shape.upload is not None and shape.picture is not None:
        raise UsageError("A term is one text, one picture, one image or one upload; this one has two of them.")
    return queries.Term(
        text=shape.text,
        image=shape.image,
        picture=shape.picture if shape.upload is None else state.uploads.get(shape.upload),
        weight=shape.weight,
        part=None if shape.part is None else tuple(shape.part),  # type: ignore[arg-type]
    )


def filters_of(shape: FiltersShape) -> Filters:
    return Filters.from_json(shape.model_dump(exclude_none=True))


def answer(served: Served, query: queries.Query) -> Response:
    """Ask the engine; on a worker thread."""
    begun = time.perf_counter()
    result = served.engine.search(query)
    total = served.engine.count(query.filters)
    found: dict[str, Any] = shapes_of.search_result(result)
    shown(found["hits"], served)
    found |= {"notice": result.notice, "total": total, "seconds": round(time.perf_counter() - begun, 6)}
    return reply(found)
