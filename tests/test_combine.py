"""Reciprocal ranks, diversity and groups, against plain ways of doing the same."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.combine import complete_linkage, diverse_order, reciprocal_ranks

# --- reciprocal ranks -------------------------------------------------------------------------------------------


def test_reciprocal_ranks_worked_by_hand() -> None:
    assert reciprocal_ranks([[7, 8], [8, 9]]) == [(8, (1 / 62, 1 / 61)), (7, (1 / 61, 0.0)), (9, (0.0, 1 / 62))]
    assert reciprocal_ranks([[1, 2], [2, 1]], k=0) == [(1, (1.0, 0.5)), (2, (0.5, 1.0))]  # equal: the first list's
    assert reciprocal_ranks([[], [5, 3]]) == [(5, (0.0, 1 / 61)), (3, (0.0, 1 / 62))]
    assert reciprocal_ranks([[4, 4, 6]]) == [(4, (1 / 61,)), (6, (1 / 62,))]  # an id counts once
    assert reciprocal_ranks([[], []]) == reciprocal_ranks([]) == []


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), min_size=1, max_size=4))
def test_reciprocal_ranks_against_exact_fractions(lists: list[list[int]]) -> None:
    found = reciprocal_ranks(lists)
    assert sorted(one for one, _ in found) == sorted({one for ids in lists for one in ids})
    exact = {
        one: sum((Fraction(1, 61 + ids.index(one)) for ids in lists if one in ids), Fraction()) for one, _ in found
    }
    for one, parts in found:
        assert parts == tuple(1 / (61 + ids.index(one)) if one in ids else 0.0 for ids in lists)

    def order(one: int) -> tuple[float, int, int]:
        place = lists[0].index(one) if one in lists[0] else 99
        return float(-exact[one]), place, one

    assert [one for one, _ in found] == sorted(exact, key=order)


# --- diversity --------------------------------------------------------------------------------------------------


def slow_mmr(rows: np.ndarray, relevance: np.ndarray, diversity: float) -> list[int]:
    """Maximal marginal relevance as its paper says it, on values scaled to 0 .. 1."""
    n = len(relevance)
    low, high = min(relevance), max(relevance)
    wanted = [(one - low) / (high - low) if high > low else 0.0 for one in relevance]
    cosines = [[float(a @ b) for b in rows] for a in rows]
    least = min(min(line) for line in cosines)
    similar = [[(one - least) / (1 - least) if 1 - least > 1e-9 else 0.0 for one in line] for line in cosines]
    chosen: list[int] = []
    while len(chosen) < n:

        def value(i: int) -> tuple[float, float, int]:
            near = max(similar[i][j] for j in chosen) if chosen else 0.0
            weight = diversity if chosen else 0.0
            return round((1 - weight) * wanted[i] - weight * near, 9), wanted[i], -i

        chosen.append(max((i for i in range(n) if i not in chosen), key=value))
    return chosen


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]))
def test_diverse_order_against_a_slow_loop(count: int, seed: int, diversity: float) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    relevance = chance.random(count)
    assert diverse_order(rows, relevance, diversity).tolist() == slow_mmr(rows, relevance, diversity)


def test_a_repeat_comes_after_something_new() -> None:
    rows = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    relevance = np.array([1.0, 0.99, 0.9, 0.0])
    assert diverse_order(rows, relevance, 0).tolist() == [0, 1, 2, 3]
    assert diverse_order(rows, relevance, 0.5).tolist() == [0, 2, 1, 3]
    assert diverse_order(rows, relevance, 1).tolist() == [0, 3, 2, 1]


def test_equal_candidates_keep_their_order() -> None:
    same = np.ones((5, 1))
    assert diverse_order(same, np.zeros(5), 0.7).tolist() == [0, 1, 2, 3, 4]
    assert diverse_order(same, np.array([0.0, 1, 0, 1, 0]), 0.7).tolist() == [1, 3, 0, 2, 4]
    assert diverse_order(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


def test_diversity_does_not_hang_on_the_scale_of_relevance() -> None:
    chance = np.random.default_rng(4)
    rows = chance.normal(size=(40, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    relevance = chance.random(40)
    for other in (relevance * 0.01 + 0.2, relevance * 30 - 5):
        assert diverse_order(rows, other, 0.4).tolist() == diverse_order(rows, relevance, 0.4).tolist()


# --- groups -----------------------------------------------------------------------------------------------------


def slow_groups(count: int, distances: np.ndarray, threshold: float) -> list[list[int]]:
    """Complete linkage the plain way: merge the two nearest groups, again and again."""
    groups = [[one] for one in range(count)]

    def apart(one: list[int], other: list[int]) -> tuple[float, int, int]:
        return max((distances[a, b], min(a, b), max(a, b)) for a in one for b in other)

    while True:
        pairs = [(apart(one, other), one, other) for one, other in combinations(groups, 2)]
        pairs = [pair for pair in pairs if pair[0][0] <= threshold]
        if not pairs:
            return sorted(sorted(group) for group in groups if len(group) > 1)
        _, one, other = min(pairs)
        groups.remove(other)
        one += other


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 12), st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 9))
def test_groups_against_the_plain_way(count: int, seed: int, most: int, threshold: int) -> None:
    """Few different distances, so that ties are everywhere."""
    distances = np.random.default_rng(seed).integers(0, most + 1, (count, count))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    first, second = np.nonzero(np.triu(distances <= threshold, 1))
    expected = slow_groups(count, distances, threshold)
    assert complete_linkage(count, first, second, distances[first, second], threshold) == expected
    # Neither the order of the pairs, nor which comes first in a pair, nor pairs beyond the threshold matter.
    first, second = np.nonzero(np.triu(np.ones_like(distances), 1))
    chance = np.random.default_rng(seed).permutation(len(first))
    first, second = first[chance], second[chance]
    assert complete_linkage(count, second, first, distances[first, second], threshold) == expected


def test_groups_do_not_chain() -> None:
    """Five in a row, each near the next: single linkage would make one group of all."""
    first, second = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4])
    assert complete_linkage(5, first, second, np.ones(4), 1) == [[0, 1], [2, 3]]
    nearest_in_the_middle = np.array([0.5, 0.1, 0.5, 0.5])
    assert complete_linkage(5, first, second, nearest_in_the_middle, 1) == [[1, 2], [3, 4]]


def test_no_pairs_no_groups() -> None:
    none = np.empty(0, np.int64)
    assert complete_linkage(3, none, none, np.empty(0), 1.0) == []
    assert complete_linkage(0, none, none, np.empty(0), 1.0) == []
    assert complete_linkage(2, np.array([0]), np.array([1]), np.array([2.0]), 1.0) == []


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_many_items_take_seconds(kind: str) -> None:
    chance = np.random.default_rng(3)
    if kind == "sparse":
        count = 20_000
        first = chance.integers(0, count - 20, 60_000)
        keys = np.unique(first * count + first + chance.integers(1, 20, len(first)))
        first, second = keys // count, keys % count
    else:
        count = 800
        first, second = np.triu_indices(count, 1)
    distances = chance.random(len(first))
    started = time.perf_counter()
    groups = complete_linkage(count, first, second, distances, 0.95 if kind == "sparse" else 1.0)
    assert time.perf_counter() - started < 30
    if kind == "dense":
        assert groups == [list(range(count))]
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    for group in groups[:2000]:
        assert all(pair in pairs for pair in combinations(group[:50], 2))
