"""What changes when queries go over to another model: the answers to saved queries, and the figures of `evaluation`.

In: a collection with vectors of both models, the new one's complete or not. Out: for each saved query how many of the
first k answers stay, which come and which go, and how alike the two orders are; and both models on one test set.
Pictures that one of the models has not encoded (yet) take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, replace

from mmsearch import metrics
from mmsearch.catalog import read, samples, saved
from mmsearch.catalog.catalog import Catalog
from mmsearch.errors import MissingExtraError, MMSearchError, ModelError, UsageError
from mmsearch.evaluation import Evaluation, Side, evaluate_collection
from mmsearch.query import Query
from mmsearch.testsets import Source
from mmsearch.types import Hit, Progress, SearchResult

Search = Callable[[Query], SearchResult]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a model has come: how many of the collection's images it has encoded, and whether queries use it."""

    encoder: str
    encoded: int
    images: int
    current: bool


@dataclass(frozen=True, slots=True)
class ChangedQuery:
    """How the answers to one query change. stay: how many of the first `of` are the same in any order.
    overlap: rank-biased overlap of the two orders, 0 to 1. come, go: the hits that are new, and that are gone, best
    first. error: why the query could not be asked; then nothing else counts."""

    name: str
    stay: int = 0
    of: int = 0
    overlap: float = 0.0
    come: tuple[Hit, ...] = ()
    go: tuple[Hit, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """evaluation: the old model's figures with the new one as its rival; None where no test set can be built, and then
    `no_evaluation` says why."""

    old: Reach
    new: Reach
    k: int
    queries: tuple[ChangedQuery, ...]
    evaluation: Evaluation | None
    no_evaluation: str | None


def compare(
    catalog: Catalog,
    sides: tuple[Side, Side],
    searches: tuple[Search, Search],
    *,
    k: int,
    source: Source | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """sides and searches: the old model's, then the new one's. UsageError: k is below 1, or both are the same."""
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1.")
    if sides[0].space.id == sides[1].space.id:
        raise UsageError(f"Both models are {sides[0].space.encoder}; name two to compare.")
    with catalog.reading() as connection:
        encoded = [set(samples.encoded_images(connection, side.space.id)) for side in sides]
        images = read.count_images(connection)
        queries = saved.read_all(connection)
    both = encoded[0] & encoded[1]
    old, new = (
        Reach(side.space.encoder, len(one), images, side.space.current)
        for side, one in zip(sides, encoded, strict=True)
    )
    changed = tuple(_compare(name, query, *searches, k, both) for name, query in queries)
    evaluation, why = None, None
    try:
        evaluation = evaluate_collection(catalog, *sides, source=source, on_progress=on_progress)
    except (UsageError, ModelError, MissingExtraError) as error:
        why = str(error)
    return Comparison(old, new, k, changed, evaluation, why)


def _compare(name: str, query: Query, old: Search, new: Search, k: int, images: Collection[int]) -> ChangedQuery:
    try:
        before, after = (_first(search, query, k, images) for search in (old, new))
    except MMSearchError as error:
        return ChangedQuery(name, error=str(error))
    stay = before.keys() & after.keys()
    return ChangedQuery(
        name,
        stay=len(stay),
        of=max(len(before), len(after)),
        overlap=metrics.rank_biased_overlap(tuple(before), tuple(after)),
        come=tuple(hit for key, hit in after.items() if key not in stay),
        go=tuple(hit for key, hit in before.items() if key not in stay),
    )


def _first(search: Search, query: Query, k: int, images: Collection[int]) -> dict[Hashable, Hit]:
    """The first k hits among these images, by what they are."""
    fetch = k
    while True:
        hits = search(replace(query, k=fetch, offset=0)).hits
        kept = [hit for hit in hits if hit.id in images][:k]
        if len(kept) == k or len(hits) < fetch:
            return {(hit.id, hit.caption): hit for hit in kept}
        fetch *= 4
