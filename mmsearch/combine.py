"""Putting lists, scores and pairs together: reciprocal ranks, diversity, groups. Pure NumPy.

    reciprocal_ranks   several ranked lists -> one (Cormack, Clarke, Buettcher 2009)
    diverse_order      what is relevant and unlike what came before it (MMR; Carbonell, Goldstein 1998)
    complete_linkage   pairs that are near -> groups in which every two are near, so that groups don't chain

Every result is the same for the same input, whatever the order of equal values in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    farthest members; equal ones go by the ids of those two members. Returns the groups of two and more, members
    ascending, in the order of their first members.

    Takes the chain of nearest neighbours (Murtagh 1983), which merges as the plain way does, and works on named pairs
    alone: 100,000 items with 400,000 pairs take some seconds, 5,000 items of which every two are a pair, too.
    """
    groups = _Groups(count, first, second, distance, threshold)
    for start in groups.paired():
        chain = [start] if groups.leader[start] == start else []
        while chain:
            nearest = groups.nearest(chain[-1])
            if nearest is None:  # nothing is near all of it
                chain.pop()
            elif nearest in chain[-2:-1]:  # each is the other's nearest
                last, before = chain.pop(), chain.pop()
                merged = groups.merge(last, before)
                chain = chain or [merged]
            else:
                chain.append(nearest)
    return sorted(sorted(items) for items in groups.members.values())


class _Groups:
    """The groups so far. A group is called by one of its items, its leader.

    A row holds what may be near a group: other groups, the rank of the farthest pair of items, how many pairs. Pairs
    are ranked by their distance, then by their ids, so that no two are equal. Rows are brought up to date when they
    are looked at.
    """

    def __init__(
        self, count: int, first: NDArray[Any], second: NDArray[Any], distance: NDArray[Any], threshold: float
    ) -> None:
        within = np.flatnonzero(np.asarray(distance) <= threshold)
        low = np.minimum(first, second)[within].astype(np.int64)
        high = np.maximum(first, second)[within].astype(np.int64)
        order = np.lexsort((high, low, np.asarray(distance)[within]))
        low, high = low[order], high[order]
        heads = np.concatenate([low, high])
        by_head = np.argsort(heads, kind="stable")
        self._others = np.concatenate([high, low])[by_head].astype(np.int32)  # the rows of single items, end to end
        self._ranks = (by_head % max(1, len(low))).astype(np.int32)
        self._bounds = np.searchsorted(heads[by_head], np.arange(count + 1))
        self._rows: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}  # of those that changed since
        self._size = np.ones(count, np.int64)
        self.leader = np.arange(count, dtype=np.int32)  # (count,): of each item, the leader of its group
        self.members: dict[int, list[int]] = {}  # leader -> items, of groups of two and more

    def paired(self) -> list[int]:
        """The items that have any pair."""
        return [int(one) for one in np.flatnonzero(np.diff(self._bounds))]

    def nearest(self, group: int) -> int | None:
        others, ranks, _ = self._row(group)
        return int(others[np.argmin(ranks)]) if len(others) else None

    def merge(self, a: int, b: int) -> int:
        """-> the leader of both: the larger one's, since that of each item of the other has to be written."""
        if self._size[a] < self._size[b]:
            a, b = b, a
        others, ranks, pairs = (np.concatenate(part) for part in zip(self._row(a), self._row(b), strict=True))
        self._rows[a] = others, ranks, pairs
        self._rows.pop(b, None)
        joined = self.members.pop(b, [b])
        self.leader[joined] = a
        self._size[a] += len(joined)
        self.members.setdefault(a, [a]).extend(joined)
        return a

    def _row(self, group: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        if group in self._rows:
            others, ranks, pairs = self._rows[group]
        else:
            mine = slice(self._bounds[group], self._bounds[group + 1])
            others, ranks = self._others[mine], self._ranks[mine]
            pairs = np.ones(len(others), np.int64)
        now = self.leader[others]
        if np.array_equal(now, others) and np.array_equal(pairs, self._size[group] * self._size[now]):
            return others, ranks, pairs
        order = np.argsort(now, kind="stable")
        now = now[order]
        begins = np.flatnonzero(np.concatenate([[True], now[1:] != now[:-1]]))
        others, ranks = now[begins], np.maximum.reduceat(ranks[order], begins)
        pairs = np.add.reduceat(pairs[order], begins)
        # A pair that is missing never comes back, so a group that lacks one is far away for good.
        whole = (pairs == self._size[group] * self._size[others]) & (others != group)
        self._rows[group] = others[whole], ranks[whole], pairs[whole]
        return self._rows[group]
