"""The search, top to bottom: resolve, filter, encode, search, combine, calibrate, arrange, hydrate.

In: a query. Out: hits that are exact, in an order that depends on nothing but vectors and words: score, then sha256.

    resolve    which space is asked, and the generation and the newest rows that serve it (views.py)
    filter     which vectors may answer at all
    encode     the terms, into one vector with a part for each (composing.py)
    search     the generation through FAISS, the newest rows beside it by a plain product; words through FTS5
    combine    both lists into one, where both were asked for
    calibrate  scores into probabilities (relevance.py)
    arrange    cut, sort, fold, diversify; take the page (arranging.py)
    hydrate    files, dates, each term's share

Nothing is returned that could be wrong at the edge: candidates are scored again from the catalog's own rows, so that
neither the index nor the way it adds up decides the order; and when a row that was not fetched could still belong
among the first (its approximate score is too close, or hits dropped out), more rows are fetched.
This file is a little longer than most because it reads as one story.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch import arranging
from mmsearch.arranging import Candidate, Ranking
from mmsearch.catalog import read, texts, where
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import Found
from mmsearch.combine import reciprocal_ranks
from mmsearch.composing import Composed, compose, images_named
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import UsageError
from mmsearch.filters import Node
from mmsearch.query import Query
from mmsearch.relevance import HITS, Calibration, Scale
from mmsearch.settings import Limits
from mmsearch.types import Hit, SearchResult, Share
from mmsearch.views import JointRows, Rows, View
from mmsearch.words import expression, phrases

# How far an index's score may lie from the exact one, which divides by the length of the row: rounding to float16
# changes each number, and so the length, by at most 2^-11 of it; adding up in float32 changes less.
SCORE_TOLERANCE = 6e-4

RELEVANT = 0.5  # more likely than not
NEAREST = 100  # what is sorted by date or name where nobody can tell what is relevant
RRF_K = 60  # as in the paper (combine.py)
MOST_WORDS = 16  # of a query that are looked for one by one
# With both, words count where most of them are there, or their BM25 has this share of the best. Further down they are
# common words, which would put each picture with a caption before each one without. Chosen on Flickr8k dev, where half
# of the pictures had captions (benchmarks/combining.md).
WORDS_SHARE = 0.8
HYBRID_DEPTH = 200  # of each list: further down, reciprocal ranks hardly differ; the rest follows as vectors have it


def search(catalog: Catalog, view: View, encoder: Encoder | None, query: Query, limits: Limits) -> SearchResult:
    """Answer a query in the space of `view`. encoder: needed where terms are texts or pictures."""
    filters = query.filters.tree()
    asked = None
    with catalog.reading() as connection:
        if filters is not None:
            where.check(connection, filters)
        stored = _stored(connection, view, query)
        calibration = view.calibration(connection, encoder)
    if query.match != "keywords" and not query.lists_only:
        asked = compose(
            query,
            view.space.dimension,
            encoder=encoder,
            stored=stored,
            files=lambda image: _file_of(catalog, image),
            calibration=calibration,
            limits=limits,
        )

    with catalog.reading() as connection:
        source = view.joint_rows(connection) if query.match == "joint" else view.rows(connection, query.find)
        nearest = None if asked is None else _nearest(connection, source, view.space.id, query, asked, filters)
        scale = None
        if calibration is not None and asked is not None and nearest is not None and query.match != "joint":
            everything = nearest if filters is None else None
            scale = _scale(connection, source, view.space.id, query, asked, calibration, everything)
        ranking = _ranking(connection, view.space.id, query, asked, nearest, filters)
        if query.lists_only and query.min_probability is None and not (query.unique or query.diverse):
            # Any page at once, however far down.
            page = _listed(connection, query, filters, query.offset, query.k)
        else:
            page = _arrange(connection, ranking, query, scale, filters).first(query.offset + query.k)[query.offset :]
        hits = _hydrate(connection, page, query, asked, scale, filters)
    return SearchResult(
        space=view.space.encoder,
        exact=source.exact,
        hits=hits,
        notice=view.take_notice(),
        relevant=sum(_is_relevant(one, query, scale) for one in page) if scale is not None else None,
        calibration=None if scale is None or calibration is None else calibration.kind,
    )


# --- encode -----------------------------------------------------------------------------------------------------


def _stored(connection: Connection, view: View, query: Query) -> dict[int, NDArray[np.float16]]:
    """The vectors of the images that a query names by id."""
    named = images_named(query)
    found = {one.image: one.row for one in read.owned(connection, view.space.id, "images", named)}
    for image in named:
        if image not in found:
            raise UsageError(f"There is no image #{image} in this collection; `mmsearch query --json` shows ids.")
        if not len(found[image]):
            raise UsageError(f"The image #{image} has no vector of {view.space.encoder}; `mmsearch index` makes it.")
    return found


def _file_of(catalog: Catalog, image: int) -> Path:
    with catalog.reading() as connection:
        places = [place for place in read.present_files(connection, [image]).get(image, []) if place[0]]
    if not places:
        raise UsageError(f"The image #{image} has no file here, so that no part of it can be looked at.")
    return Path(os.fsdecode(os.path.join(*places[0])))


# --- search, combine --------------------------------------------------------------------------------------------


def _nearest(
    connection: Connection,
    source: Rows | JointRows,
    space: int,
    query: Query,
    asked: Composed,
    filters: Node | None,
) -> Callable[[int], list[Candidate]]:
    """n -> the n candidates whose vectors are nearest. What was found is kept for whoever asks for as many or fewer."""
    kind = "joint" if query.match == "joint" else query.find
    allowed = None
    if filters is not None or kind == "joint":
        allowed = read.allowed_ids(connection, space, kind, filters)
    found: list[Candidate] = []
    complete = False

    def nearest(n: int) -> list[Candidate]:
        nonlocal found, complete
        if n > len(found) and not complete:
            best = _best(connection, source, space, kind, asked.vector, n, allowed)
            found = [Candidate(one, score, score if kind == query.find else None) for score, one in best]
            complete = len(found) < n
        return found[:n]

    return nearest


def _ranking(
    connection: Connection,
    space: int,
    query: Query,
    asked: Composed | None,
    nearest: Callable[[int], list[Candidate]] | None,
    filters: Node | None,
) -> Ranking:
    """All candidates, best first."""
    if query.match == "keywords":
        every = _expression(query, every=True)

        def by_words(n: int) -> list[Candidate]:
            scores = dict(texts.ranked(connection, query.find, every, filters, n))
            found = read.owned(connection, space, query.find, list(scores))
            return [Candidate(one, scores[one.owner], None, (scores[one.owner],), certain=True) for one in found]

        return Ranking(by_words)
    if asked is None or nearest is None:
        return Ranking(lambda n: _listed(connection, query, filters, 0, n))
    if query.match == "hybrid":
        return _both(connection, nearest, space, query, asked, filters)
    return Ranking(nearest)


def _listed(connection: Connection, query: Query, filters: Node | None, offset: int, most: int) -> list[Candidate]:
    """What filters alone choose, in the order that was asked for."""
    images = read.listing(connection, filters, query.sort)[offset : offset + most].tolist()
    return [Candidate(one, 0.0) for one in read.without_rows(connection, images)]


def _both(
    connection: Connection,
    by_vectors: Callable[[int], list[Candidate]],
    space: int,
    query: Query,
    asked: Composed,
    filters: Node | None,
) -> Ranking:
    """Vectors and words by reciprocal ranks; what is far down in both follows in the order of the vectors."""
    nearest = {one.found.owner: one for one in by_vectors(HYBRID_DEPTH)}
    words = list(dict.fromkeys(one for term in query.terms if term.weight > 0 for one in phrases(term.text or "")))
    by_words = []
    if words:
        by_words = texts.ranked(connection, query.find, _expression(query, every=False), filters, HYBRID_DEPTH)
    having = Counter[int]()
    for word in words[:MOST_WORDS]:
        match = expression([word], every=True)
        having.update(texts.matching(connection, query.find, match, [one for one, _ in by_words]))
    most_words = {one for one, count in having.items() if count * 2 > len(words)}
    any_word = [one for one, score in by_words if one in most_words or score >= WORDS_SHARE * by_words[0][1]]
    only_words = read.owned(connection, space, query.find, [one for one in any_word if one not in nearest])
    rows = [one for one in only_words if len(one.row)]
    cosines = dict(zip((one.owner for one in rows), _exact_scores(asked.vector, rows), strict=True))
    known = {one.owner: Candidate(one, 0.0, cosines.get(one.owner)) for one in only_words} | nearest
    fused = [
        Candidate(known[one].found, math.fsum(parts), known[one].cosine, parts, one in most_words)
        for one, parts in reciprocal_ranks([list(nearest), any_word], RRF_K)
    ]
    fused.sort(key=lambda one: (-one.score, one.found.sha256, one.found.caption or ""))
    inside = {one.found.owner for one in fused}

    def first(n: int) -> list[Candidate]:
        if n <= len(fused):
            return fused[:n]
        tail = []
        for rank, one in enumerate(by_vectors(n), 1):
            if one.found.owner not in inside:
                score = 1 / (RRF_K + rank)
                tail.append(Candidate(one.found, score, one.cosine, (score, 0.0)))
        return [*fused, *tail][:n]

    return Ranking(first, mixed=len(fused))


def _expression(query: Query, *, every: bool) -> str:
    wanted = [term.text for term in query.terms if term.text is not None and term.weight > 0]
    unwanted = [term.text for term in query.terms if term.text is not None and term.weight < 0]
    return expression(wanted, unwanted, every=every)


def _best(
    connection: Connection,
    source: Rows | JointRows,
    space_id: int,
    kind: str,
    vector: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None,
) -> list[tuple[float, Found]]:
    """The k best visible rows with their exact scores; min(k, visible) of them."""
    fetch = 2 * k + 16
    while True:
        rough, ids = source.best(vector, fetch, allowed)
        found = read.visible(connection, kind, ids.tolist())
        scored = sorted(
            zip(_exact_scores(vector, found), found, strict=True),
            key=lambda pair: (-pair[0], pair[1].sha256, pair[1].caption or ""),
        )
        everything = len(ids) < fetch
        if everything or (len(scored) >= k and scored[k - 1][0] > rough[-1] + SCORE_TOLERANCE):
            return scored[:k]
        if allowed is None and len(found) < len(ids):
            allowed = read.allowed_ids(connection, space_id, kind, None)  # some are hidden: decide first, then search
        else:
            fetch *= 4  # the scores at the edge are too close to tell


def _exact_scores(vector: NDArray[np.float32], found: Sequence[Found]) -> list[float]:
    """Cosines in float64, rounded to float32: each row is added up by itself, so they are the same whatever the
    company."""
    if not found:
        return []
    rows = np.stack([one.row for one in found]).astype(np.float64)
    dots = (rows * vector.astype(np.float64)).sum(axis=1)
    scores: list[float] = (dots / np.sqrt((rows * rows).sum(axis=1))).astype(np.float32).tolist()
    return scores


# --- calibrate, arrange -----------------------------------------------------------------------------------------


def _scale(
    connection: Connection,
    source: Rows | JointRows,
    space: int,
    query: Query,
    asked: Composed,
    calibration: Calibration,
    nearest: Callable[[int], list[Candidate]] | None,
) -> Scale | None:
    """How this query's scores become probabilities. That hangs on its best hits over everything, so that filters do not
    change how likely an image is. nearest: what searches everything, where that is done anyway.

    With unwanted terms, the best hit is as likely as the best one without them, and the others fall off as quickly."""
    direction = asked.direction(query.find)
    if direction is None:
        return None
    best = None if nearest is None else nearest(max(HITS, query.offset + query.k))[:HITS]
    if best is not None:
        found = [(one.score, one.found) for one in best]
    else:
        found = _best(connection, source, space, query.find, asked.vector, HITS, None)
    alone = asked.wanted_alone
    if alone is None:
        return calibration.scale(asked.vector, direction, _rows_of(found), len(source))
    # Whether there is anything is asked without what is unwanted: nobody knows how scores of opposites are spread.
    plain = _best(connection, source, space, query.find, alone, HITS, None)
    scale = calibration.scale(alone, direction, _rows_of(plain), len(source))
    if scale is None or not found:
        return scale
    wide, narrow = (max(one[0][0] - one[-1][0], 1e-3) for one in (plain, found))
    slope = scale.slope * min(max(wide / narrow, 0.5), 2.0)
    return Scale(slope, scale.slope * plain[0][0] + scale.intercept - slope * found[0][0])


def _rows_of(found: Sequence[tuple[float, Found]]) -> NDArray[np.float64] | None:
    return np.stack([_unit(one.row) for _, one in found]) if found else None


def _probability(one: Candidate, scale: Scale | None) -> float | None:
    if scale is None or one.cosine is None:
        return None
    return float(scale.probability(np.array([one.cosine]))[0])


def _is_relevant(one: Candidate, query: Query, scale: Scale | None) -> bool:
    if one.certain:
        return True
    least = RELEVANT if query.min_probability is None else query.min_probability
    return (_probability(one, scale) or 0.0) >= least


def _arrange(
    connection: Connection, ranking: Ranking, query: Query, scale: Scale | None, filters: Node | None
) -> Ranking:
    """The ranking as the query wants it shown."""
    if query.min_probability is not None:
        if scale is None:
            raise UsageError("The probabilities of this query are not known, so that none can be asked for.")
        least = query.min_probability
        ranking = arranging.likely(ranking, lambda one: (_probability(one, scale) or 0.0) >= least)

    unknown = scale is None and not query.lists_only and query.match != "keywords"

    def relevant(one: Candidate) -> bool:
        return scale is None or _is_relevant(one, query, scale)

    if query.unique:
        ranking = arranging.unique(ranking, lambda images: read.perceptual_hashes(connection, images))
    if query.sort != "relevance":
        by = query.sort
        return arranging.relevant_first(
            ranking, relevant, lambda found: _sorted(connection, found, by, filters), most=NEAREST if unknown else None
        )
    if query.diverse:
        return arranging.relevant_first(
            ranking,
            relevant,
            lambda found: arranging.diversified(found, query.diverse),
            most=arranging.DIVERSE_POOL,
        )
    return ranking


def _sorted(connection: Connection, found: Sequence[Candidate], sort: str, filters: Node | None) -> list[Candidate]:
    """By date, the newest first and what has none last; or by the name of the file. Equal ones by relevance."""
    images = [one.found.image for one in found]
    if sort == "date":
        dates = {one: facts[0] for one, facts in read.taken_and_size(connection, images).items()}
        dated = [one for one in found if dates[one.found.image] is not None]
        dated.sort(key=lambda one: dates[one.found.image], reverse=True)  # type: ignore[arg-type,return-value]
        return [*dated, *(one for one in found if dates[one.found.image] is None)]
    places = read.present_files(connection, images, filters)
    return sorted(found, key=lambda one: read.name_order(*places[one.found.image][0]))


# --- hydrate ----------------------------------------------------------------------------------------------------


def _hydrate(
    connection: Connection,
    page: Sequence[Candidate],
    query: Query,
    asked: Composed | None,
    scale: Scale | None,
    filters: Node | None,
) -> tuple[Hit, ...]:
    """Candidates -> hits, with files, dates, probabilities and shares."""
    images = [one.found.image for head in page for one in (head, *head.folded)]
    places = read.present_files(connection, images, filters)
    known = read.taken_and_size(connection, images)

    def hit(one: Candidate, rank: int) -> Hit:
        mine = places[one.found.image]
        files = tuple(Path(os.fsdecode(os.path.join(*place))) for place in mine if place[0])
        files = tuple(sorted(files, key=lambda path: not path.exists()))  # a disk may be away, a file just deleted
        keys = [os.fsdecode(relative) for root, relative in mine if not root]
        taken_at, width, height = known[one.found.image]
        return Hit(
            rank=rank,
            id=one.found.image,
            sha256=one.found.sha256.hex(),
            path=files[0] if files else None,
            paths=files,
            key=keys[0] if keys else None,
            caption=one.found.caption,
            score=one.score,
            probability=_probability(one, scale),
            shares=_shares(one, asked),
            taken_at=taken_at,
            folded=tuple(hit(other, rank) for other in one.folded),
            width=width,
            height=height,
        )

    return tuple(hit(one, rank) for rank, one in enumerate(page, query.offset + 1))


def _shares(one: Candidate, asked: Composed | None) -> tuple[Share, ...]:
    if one.parts:
        return tuple(map(Share, ("vectors", "keywords")[-len(one.parts) :], one.parts))
    if asked is None:
        return ()
    return tuple(map(Share, asked.names, (asked.parts @ _unit(one.found.row)).tolist()))


def _unit(row: NDArray[np.float16]) -> NDArray[np.float64]:
    wide = row.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide))
