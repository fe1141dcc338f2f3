"""Putting lists, scores and pairs together: reciprocal ranks, diversity, groups. Pure NumPy.

    reciprocal_ranks   several ranked lists -> one (Cormack, Clarke, Buettcher 2009)
    diverse_order      what is relevant and unlike what came before it (MMR; Carbonell, Goldstein 1998)
    complete_linkage   pairs that are near -> groups in which every two are near, so that groups don't chain

Every result is the same for the same input, whatever the order of equal values in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray


def reciprocal_ranks(lists: Sequence[Sequence[int]], k: int = 60) -> list[tuple[int, tuple[float, ...]]]:
    """Ranked ids, best first -> every id of any list with its part from each list, best sum of parts first.

    A list's part is 1 / (k + rank), rank from 1, and 0 where the id is not in it. Equal sums go by the place in the
    first list, then in the id's own order. An id that a list names twice counts where it comes first.

        reciprocal_ranks([[7, 8], [8, 9]])  ->  8: (1/62, 1/61), 7: (1/61, 0), 9: (0, 1/62)
    """
    parts: dict[int, list[float]] = {}
    for number, ids in enumerate(lists):
        for rank, one in enumerate(dict.fromkeys(ids), 1):
            parts.setdefault(one, [0.0] * len(lists))[number] = 1 / (k + rank)

    def order(item: tuple[int, list[float]]) -> tuple[float, float, int]:
        # fsum: the same parts make the same sum in whichever lists they were. The first part falls with the place.
        return -math.fsum(item[1]), -item[1][0], item[0]

    return [(one, tuple(mine)) for one, mine in sorted(parts.items(), key=order)]


def diverse_order(rows: NDArray[Any], relevance: NDArray[Any], diversity: float) -> NDArray[np.int64]:
    """The order in which to show candidates: relevant ones first, near-repeats of what came before later.

    rows: (n, d), unit length. relevance: (n,), any scale, more is better. diversity: 0 (by relevance alone) to 1.
    Returns (n,): positions of the candidates. The most relevant is always first; then, again and again, the one with
    the greatest (1 - diversity) * relevance - diversity * (cosine to the most similar one already shown).
    Both are first brought to one scale, since cosines between pictures and those to a text lie in different ranges:
    relevance to 0 (the least relevant candidate) to 1 (the most), cosines to 0 (the two least similar candidates)
    to 1 (equal). Equal values go by relevance, then by position. Takes n * n cosines: for some hundreds.
    """
    count = len(relevance)
    by_relevance = np.argsort(-np.asarray(relevance, np.float64), kind="stable").astype(np.int64)
    if diversity <= 0 or count < 3:
        return by_relevance
    wide = np.asarray(rows, np.float64)[by_relevance]
    cosines = wide @ wide.T
    similar = _scaled(cosines, float(cosines.min()), 1.0)
    wanted = np.asarray(relevance, np.float64)[by_relevance]
    wanted = (1 - diversity) * _scaled(wanted, float(wanted[-1]), float(wanted[0]))
    nearest = np.full(count, -np.inf)  # the cosine to the most similar one already shown
    shown = [0]
    wanted[0] = -np.inf  # never again
    while len(shown) < count:
        nearest = np.maximum(nearest, similar[shown[-1]])
        best = int(np.argmax(wanted - diversity * nearest))  # the first of equal ones: the more relevant
        shown.append(best)
        wanted[best] = -np.inf
    return by_relevance[shown]


def _scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """low -> 0, high -> 1; zeros where they are equal."""
    if high - low < 1e-9:
        return np.zeros_like(values)
    return (values - low) / (high - low)


def complete_linkage(
    count: int, first: NDArray[Any], second: NDArray[Any], distance: NDArray[Any], threshold: float
) -> list[list[int]]:
    """Groups of items in which every two are within the threshold, merged nearest first.

    count: items are 0 to count - 1. first, second, distance: (m,) each: the pairs of different items that may be
    within the threshold, each once; those not named are beyond it. The distance of two groups is that of their
    farthest members. Equal distances merge in the order of their smallest members, so the result is always the same.
    Returns the groups of two and more, members ascending, in the order of their first members.

    Cheap for many items with few pairs: two groups have a distance only while every two of their members are a named
    pair, so a merged group keeps the neighbours that both parts had, and a missing pair never comes back.
    """
    near: list[dict[int, float]] = [{} for _ in range(count)]  # smallest member of a group -> its neighbours
    within = np.asarray(distance, np.float64) <= threshold
    named = (np.asarray(first)[within], np.asarray(second)[within], np.asarray(distance, np.float64)[within])
    queue: list[tuple[float, int, int]] = []
    for a, b, apart in zip(*(column.tolist() for column in named), strict=True):
        near[a][b] = near[b][a] = apart
        queue.append((apart, min(a, b), max(a, b)))
    heapify(queue)
    members: dict[int, list[int]] = {}
    while queue:
        apart, a, b = heappop(queue)
        if near[a].get(b) != apart:  # one of the two was merged meanwhile, or they are farther apart now
            continue
        members.setdefault(a, [a]).extend(members.pop(b, (b,)))
        mine, theirs = near[a], near[b]
        near[a], near[b] = {}, {}
        for other in mine.keys() | theirs.keys():
            near[other].pop(a, None)
            near[other].pop(b, None)
        for other in mine.keys() & theirs.keys():
            farther = max(mine[other], theirs[other])
            near[a][other] = near[other][a] = farther
            heappush(queue, (farther, min(a, other), max(a, other)))
    return [sorted(group) for _, group in sorted(members.items())]
