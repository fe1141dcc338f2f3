"""Metrics against hand-worked matrices, plain loops, trec_eval (through ir-measures) and simulations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import metrics
from mmsearch.errors import UsageError

# The worked example of the module: two images, four texts, the first three belong to image 0.
SCORES = np.array([[0.9, 0.2, 0.5, 0.6], [0.1, 0.4, 0.3, 0.7]])  # (images, texts)
OWNERS = np.array([0, 0, 0, 1])
OWN = OWNERS[None, :] == np.arange(2)[:, None]


def test_worked_example_of_the_docstring() -> None:
    of_texts = metrics.text_to_image_ranks(SCORES.T, OWNERS)
    of_images = metrics.image_to_text_ranks(SCORES, OWN)
    assert of_texts.tolist() == [1, 2, 1, 1]
    assert of_images.tolist() == [1, 1]
    assert metrics.recall_at(of_texts, 1) == 75
    assert metrics.recall_at(of_images, 1) == 100
    assert metrics.recall_at(of_texts, 2) == 100


def test_an_own_caption_is_no_competitor_and_the_best_one_counts() -> None:
    scores = np.array([[0.5, 0.4, 0.45, 0.1]])
    own = np.array([[False, True, True, False]])
    assert metrics.image_to_text_ranks(scores, own).tolist() == [2]  # only the text with 0.5 is above 0.45


@pytest.mark.parametrize(("others_tied", "rank"), [(0, 1), (1, 1), (2, 2), (3, 2), (9, 5)])
def test_ties_end_in_the_middle(others_tied: int, rank: int) -> None:
    scores = np.zeros((1, others_tied + 1))
    assert metrics.text_to_image_ranks(scores, np.array([0])).tolist() == [rank]
    assert metrics.image_to_text_ranks(scores, np.arange(others_tied + 1)[None, :] == 0).tolist() == [rank]


def test_an_encoder_that_says_the_same_of_everything_is_not_rewarded() -> None:
    same = np.tile(np.eye(1, 8, dtype=np.float32), (100, 1))
    of_texts, of_images = metrics.retrieval_ranks(same, same, np.arange(100))
    assert metrics.recall_at(of_texts, 10) == 0
    assert metrics.median_rank(of_images) == 50


def test_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert metrics.median_rank(np.array([1, 2, 5, 100])) == 3.5
    assert metrics.median_rank(np.array([1, 2, 100])) == 2


def _slow_ranks(scores: np.ndarray, owners: list[int]) -> tuple[list[int], list[int]]:
    """(images, texts) -> t2i, i2t ranks, counted one by one."""
    of_texts = []
    for text, owner in enumerate(owners):
        right = scores[owner, text]
        others = [scores[image, text] for image in range(len(scores)) if image != owner]
        of_texts.append(1 + sum(o > right for o in others) + sum(o == right for o in others) // 2)
    of_images = []
    for image in range(len(scores)):
        own = [scores[image, text] for text, owner in enumerate(owners) if owner == image]
        if own:
            others = [scores[image, text] for text, owner in enumerate(owners) if owner != image]
            of_images.append(1 + sum(o > max(own) for o in others) + sum(o == max(own) for o in others) // 2)
    return of_texts, of_images


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_blockwise_ranks_equal_a_loop(data: st.DataObject) -> None:
    n, t = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 12))
    owners = data.draw(st.lists(st.integers(0, n - 1), min_size=t, max_size=t))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    # Small whole numbers: products are exact, and ties are frequent.
    images = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    texts = rng.integers(-2, 3, (t, 3)).astype(np.float32)
    slow_texts, slow_images = _slow_ranks(images @ texts.T, owners)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_SCORES", data.draw(st.integers(1, 100)))
        of_texts, of_images = metrics.retrieval_ranks(images, texts, np.array(owners))
    assert of_texts.tolist() == slow_texts
    assert of_images.tolist() == slow_images


def test_images_without_a_text_confuse_but_have_no_rank_of_their_own() -> None:
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[0.5, 0.6, 0.0]], dtype=np.float32)
    of_texts, of_images = metrics.retrieval_ranks(images, texts, np.array([0]))
    assert of_texts.tolist() == [2]
    assert of_images.tolist() == [1]


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(UsageError, match="not numbers"):
        metrics.text_to_image_ranks(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(UsageError, match="not numbers"):
        metrics.image_to_text_ranks(np.array([[np.nan, 1.0]]), np.array([[True, False]]))
    with pytest.raises(UsageError, match="without a caption"):
        metrics.image_to_text_ranks(SCORES, np.zeros((2, 4), dtype=bool))
    with pytest.raises(UsageError, match="one owner"):
        metrics.retrieval_ranks(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 2]))
    with pytest.raises(UsageError, match="no ranks"):
        metrics.recall_at(np.array([], dtype=np.int64), 1)
    with pytest.raises(UsageError, match="no ranks"):
        metrics.median_rank(np.array([], dtype=np.int64))


# --- one value a query --------------------------------------------------------------------------------------------


def test_rankings_worked_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    right = np.array([[True, False, True, False, False]])
    assert metrics.average_precision(scores, right)[0] == pytest.approx(100 * (1 / 1 + 2 / 3) / 2)
    assert metrics.precision_at(scores, right, 2)[0] == 50
    assert metrics.precision_at(scores, right, 10)[0] == 20  # two of ten, though there are only five
    ideal = 1 + 1 / math.log2(3)
    assert metrics.ndcg_at(scores, right, 10)[0] == pytest.approx(100 * (1 + 1 / 2) / ideal)
    graded = np.array([[1, 0, 3, 0, 0]])
    assert metrics.ndcg_at(scores, graded, 3)[0] == pytest.approx(100 * (1 + 3 / 2) / (3 + 1 / math.log2(3)))
    assert metrics.ndcg_at(scores, graded, 2)[0] == pytest.approx(100 * 1 / (3 + 1 / math.log2(3)))


def test_a_query_without_a_right_answer_has_nothing() -> None:
    scores, none = np.array([[0.2, 0.1]]), np.zeros((1, 2), bool)
    assert metrics.average_precision(scores, none).tolist() == [0]
    assert metrics.precision_at(scores, none, 1).tolist() == [0]
    assert metrics.ndcg_at(scores, none, 1).tolist() == [0]


def test_among_equal_scores_the_wrong_ones_come_first() -> None:
    scores, right = np.zeros((1, 4)), np.array([[True, False, False, True]])
    assert metrics.average_precision(scores, right)[0] == pytest.approx(100 * (1 / 3 + 2 / 4) / 2)
    assert metrics.precision_at(scores, right, 2)[0] == 0
    assert metrics.ndcg_at(scores, right, 2)[0] == 0


def test_figures_of_ranks() -> None:
    ranks = np.array([1, 2, 10, 11])
    assert metrics.reciprocal_ranks(ranks).tolist() == pytest.approx([100, 50, 10, 100 / 11])
    expected = [100, 100 / math.log2(3), 100 / math.log2(11), 0]
    assert metrics.ndcg_of_ranks(ranks, 10).tolist() == pytest.approx(expected)


def _slow(scores: list[float], gains: list[int], k: int) -> tuple[float, float, float]:
    """AP, P@k, nDCG@k of one query, counted one by one; among equal scores, small gains come first."""
    ordered = [gain for _, gain in sorted(zip(scores, gains, strict=True), key=lambda one: (-one[0], one[1]))]
    precisions = [
        sum(g > 0 for g in ordered[: place + 1]) / (place + 1) for place, gain in enumerate(ordered) if gain > 0
    ]
    gained = sum(gain / math.log2(place + 2) for place, gain in enumerate(ordered[:k]))
    best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:k]))
    return (
        100 * sum(precisions) / len(precisions) if precisions else 0.0,
        100 * sum(gain > 0 for gain in ordered[:k]) / k,
        100 * gained / best if best else 0.0,
    )


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_rankings_equal_a_loop(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 14))
    row = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=n, max_size=n)
    queries = data.draw(st.lists(row, min_size=1, max_size=4))
    scores = np.array([[score for score, _ in query] for query in queries], np.float32)
    gains = np.array([[gain for _, gain in query] for query in queries])
    slow = np.array([_slow(list(s), list(g), k) for s, g in zip(scores, gains, strict=True)])
    assert metrics.average_precision(scores, gains > 0) == pytest.approx(slow[:, 0])
    assert metrics.precision_at(scores, gains > 0, k) == pytest.approx(slow[:, 1])
    assert metrics.ndcg_at(scores, gains, k) == pytest.approx(slow[:, 2])


def test_the_same_as_trec_eval() -> None:
    measures = pytest.importorskip("ir_measures", reason="ir-measures (extra dev) is not installed")
    rng = np.random.default_rng(5)
    queries, n = 20, 60
    scores = rng.permuted(np.tile(np.arange(n, dtype=np.float64), (queries, 1)), axis=1)  # no ties: conventions differ
    gains = rng.choice([0, 0, 0, 0, 0, 1, 2, 3], (queries, n))
    gains[:, 0] = 1
    right = gains > 0
    qrels = [measures.Qrel(str(q), str(d), int(gains[q, d])) for q in range(queries) for d in range(n)]
    run = [measures.ScoredDoc(str(q), str(d), float(scores[q, d])) for q in range(queries) for d in range(n)]
    first = scores.shape[1] - np.where(right, scores, -1).max(axis=1).astype(np.int64)  # rank of the best right one
    ours = {
        measures.AP: metrics.average_precision(scores, right),
        measures.P @ 10: metrics.precision_at(scores, right, 10),
        measures.nDCG @ 10: metrics.ndcg_at(scores, gains, 10),
        measures.nDCG @ 5: metrics.ndcg_at(scores, gains, 5),
        measures.RR: metrics.reciprocal_ranks(first),
        measures.Success @ 5: np.where(first <= 5, 100.0, 0.0),
    }
    theirs = {(one.measure, int(one.query_id)): one.value for one in measures.iter_calc(list(ours), qrels, run)}
    for measure, values in ours.items():
        expected = [100 * theirs[measure, query] for query in range(queries)]
        assert values.tolist() == pytest.approx(expected, abs=1e-4), measure


# --- rank-biased overlap ------------------------------------------------------------------------------------------


def test_overlap_of_equal_and_of_strange_lists() -> None:
    assert metrics.rank_biased_overlap("abcde", "abcde") == pytest.approx(1)
    assert metrics.rank_biased_overlap("abcde", "fghij") == 0
    assert metrics.rank_biased_overlap("", "") == 1
    assert metrics.rank_biased_overlap("", "abc") == 0
    assert metrics.rank_biased_overlap("ab", "abcd") == pytest.approx(1)  # a beginning of it, as far as can be seen


def test_overlap_worked_by_hand() -> None:
    # "ab" and "ba": nothing in common at depth 1, everything at depth 2 and, as far as can be seen, below.
    for p in (0.5, 0.9):
        assert metrics.rank_biased_overlap("ab", "ba", p) == pytest.approx(p)


@settings(deadline=None, max_examples=60)
@given(
    first=st.lists(st.integers(0, 8), unique=True, min_size=1, max_size=7),
    second=st.lists(st.integers(0, 8), unique=True, min_size=1, max_size=7),
    p=st.sampled_from([0.5, 0.8, 0.9]),
)
def test_overlap_is_the_sum_of_its_definition(first: list[int], second: list[int], p: float) -> None:
    """(1 - p) times the sum of p^(d-1) agreement(d) to a depth where nothing is left, agreement going on as seen: an
    unseen place of the shorter list agrees as often as its seen ones, one below both as often as at the end."""
    short, long = sorted((first, second), key=len)
    s, most = len(short), len(long)
    at_s = len(set(short) & set(long[:s]))
    total = 0.0
    for depth in range(1, 2000):
        if depth <= s:
            agreement = len(set(short[:depth]) & set(long[:depth])) / depth
        elif depth <= most:
            agreement = (len(set(short) & set(long[:depth])) + at_s * (depth - s) / s) / depth
        total += (1 - p) * p ** (depth - 1) * agreement
    assert metrics.rank_biased_overlap(first, second, p) == pytest.approx(total)
    assert metrics.rank_biased_overlap(second, first, p) == pytest.approx(total)


# --- how sure -----------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_that_of_the_normal_distribution_where_queries_are_many() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(5, 2, 2000), rng.normal(-1, 0.5, 2000)], axis=1)
    found = metrics.bootstrap_intervals(values, np.arange(2000))
    error = 1.96 * values.std(axis=0) / math.sqrt(2000)
    assert found[:, 0] == pytest.approx(values.mean(axis=0) - error, abs=0.012)
    assert found[:, 1] == pytest.approx(values.mean(axis=0) + error, abs=0.012)


def test_queries_of_one_group_count_once() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (50, 1))
    alone = metrics.bootstrap_intervals(values, np.arange(50))
    repeated = np.repeat(values, 5, axis=0)
    assert metrics.bootstrap_intervals(repeated, np.repeat(np.arange(50), 5)) == pytest.approx(alone)
    taken_for_more = metrics.bootstrap_intervals(repeated, np.arange(250))
    assert np.ptp(taken_for_more) < 0.6 * np.ptp(alone)


def test_groups_of_different_sizes_weigh_by_their_queries() -> None:
    values = np.array([[0.0], [0.0], [0.0], [12.0]])
    groups = np.array([7, 7, 7, 3])
    # Two groups: drawn twice the same (0 or 12), or one of each (3): nothing else can come out.
    for level, expected in ((0.95, [0, 12]), (0.02, [3, 3])):
        assert metrics.bootstrap_intervals(values, groups, level=level)[0].tolist() == expected


def test_95_percent_intervals_hold_the_truth_about_as_often() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        images = rng.random(60)  # each has its own share of right answers; the truth is one half
        values = (rng.random((60, 5)) < images[:, None]).reshape(300, 1) * 100.0
        low, high = metrics.bootstrap_intervals(values, np.repeat(np.arange(60), 5), resamples=400, seed=seed)[0]
        held += low <= 50 <= high
    assert 180 <= held <= 199


def test_the_same_seed_gives_the_same_interval_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(40, 3))
    whole = metrics.bootstrap_intervals(values, np.arange(40))
    p = metrics.sign_flip_p(values, np.arange(40))
    monkeypatch.setattr(metrics, "_BLOCK_RESAMPLES", 900)
    assert metrics.bootstrap_intervals(values, np.arange(40)).tolist() == whole.tolist()
    assert metrics.sign_flip_p(values, np.arange(40)) == pytest.approx(p, abs=0.03)


def test_p_is_the_share_of_signs_that_go_as_far() -> None:
    differences = np.array([1.0, 2.0, -0.5, 3.0, 1.5, 0.25, -1.0, 2.0])
    flipped = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in
               product((-1, 1), repeat=8)]  # fmt: skip
    exact = sum(one >= abs(differences.sum()) - 1e-12 for one in flipped) / 256
    found = metrics.sign_flip_p(differences[:, None], np.arange(8))
    assert found[0] == pytest.approx(exact, abs=0.01)
    assert metrics.sign_flip_p(-differences[:, None], np.arange(8))[0] == pytest.approx(found[0], abs=0.01)


def test_p_of_nothing_and_of_much() -> None:
    groups = np.arange(100)
    assert metrics.sign_flip_p(np.zeros((100, 1)), groups).tolist() == [1]
    assert metrics.sign_flip_p(np.ones((100, 1)), groups).tolist() == [1 / 10_000]


def test_p_below_5_percent_comes_by_chance_one_time_in_twenty() -> None:
    rng = np.random.default_rng(4)
    differences = rng.choice([-100.0, 0, 0, 100], (60, 5, 300)).reshape(300, 300)  # 300 pairs of equally good systems
    found = metrics.sign_flip_p(differences, np.repeat(np.arange(60), 5), permutations=999)
    assert 4 <= (found < 0.05).sum() <= 28  # 15 on average; five standard deviations would be 34


def test_values_that_fit_no_groups_are_refused() -> None:
    for values, groups in (
        (np.zeros((0, 1)), np.zeros(0)),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((3, 1)), np.zeros(2)),
    ):
        with pytest.raises(UsageError, match="one group each"):
            metrics.bootstrap_intervals(values, groups)
