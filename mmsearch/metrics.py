"""How good a ranking is: ranks, recall, MRR, nDCG, average precision, and how sure that is. In: unit vectors, a score
matrix, ranks or rankings. Out: numbers.

Two directions: text to image (`t2i`: a caption looks for its image) and image to text (`i2t`: an image looks for any
of its captions), with any number of captions an image. `owners[t]` is the row of the image that text t belongs to.

A worked example, two images and four texts, the first three of which belong to image 0:

    owners     [0, 0, 0, 1]
    scores     image 0: [0.9, 0.2, 0.5, 0.6]
               image 1: [0.1, 0.4, 0.3, 0.7]

    t2i ranks  [1, 2, 1, 1]    text 1 prefers image 1 (0.4) to its own (0.2)
    i2t ranks  [1, 1]          image 0: its best own caption (0.9) beats the only competitor (0.6); that its own
                               caption 1 lies below 0.6 costs nothing
    R@1        t2i 75, i2t 100

The rank of the right one is 1 + (others that score higher) + (others that score the same) // 2. So one tie costs
nothing, and an encoder that gives everything the same score ends in the middle instead of on top. Where several are
right (`average_precision`, `precision_at`, `ndcg_at`), those with the same score are put wrong ones first.

Figures are in percent, but for ranks. One value a query comes out, so that means can be taken, given an interval
(`bootstrap_intervals`) and compared between two systems (`sign_flip_p`); both know that queries of one group, such as
the captions of one image, depend on one another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Scores that are held at once: 64 MB of float32, whatever the size of the set.
_BLOCK_SCORES = 1 << 24
_BLOCK_RESAMPLES = 1 << 23  # numbers of resampling that are held at once: 64 MB
RESAMPLES = 2_000  # puts the ends of a 95 % interval to within a fiftieth of its width
PERMUTATIONS = 9_999  # the smallest p is then 1 / 10,000


def text_to_image_ranks(scores: NDArray[Any], owners: NDArray[Any]) -> NDArray[np.int64]:
    """(t, n) scores of t texts against n images, higher is better; owners (t,) -> ranks (t,), from 1.

    UsageError where a score is not a number (comparing with one would look like a perfect rank).
    """
    _check(scores)
    right = scores[np.arange(len(scores)), owners][:, None]  # (t, 1)
    better = (scores > right).sum(axis=1)
    tied = (scores == right).sum(axis=1) - 1  # itself left out
    return np.asarray(1 + better + tied // 2, dtype=np.int64)


def image_to_text_ranks(scores: NDArray[Any], own: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n, t) scores of n images against t texts, higher is better; own (n, t): which texts are an image's own
    -> ranks (n,), from 1, of the best own text among the texts of others.

    UsageError where a score is not a number or an image has no text.
    """
    _check(scores)
    if not own.any(axis=1).all():
        raise UsageError("An image without a caption has no image-to-text rank; leave it out.")
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)  # (n, 1)
    better = ((scores > best) & ~own).sum(axis=1)
    tied = ((scores == best) & ~own).sum(axis=1)
    return np.asarray(1 + better + tied // 2, dtype=np.int64)


def retrieval_ranks(
    images: NDArray[np.float32], texts: NDArray[np.float32], owners: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """images (n, d), texts (t, d), both unit length; owners (t,) -> t2i ranks (t,), i2t ranks (m,).

    m counts the images that have a text, in order; the others are only there to be confused with. Works block by
    block: memory does not grow with n x t.
    """
    owners = np.asarray(owners, dtype=np.int64)
    if len(owners) != len(texts) or (len(owners) and not 0 <= owners.min() <= owners.max() < len(images)):
        raise UsageError("Every text needs one owner, the row of its image.")

    rows = max(1, _BLOCK_SCORES // max(1, len(images)))
    of_texts = [
        text_to_image_ranks(texts[start : start + rows] @ images.T, owners[start : start + rows])
        for start in range(0, len(texts), rows)
    ]

    asked = np.unique(owners)  # images that have a text
    rows = max(1, _BLOCK_SCORES // max(1, len(texts)))
    of_images = [
        image_to_text_ranks(images[block] @ texts.T, owners[None, :] == block[:, None])
        for block in (asked[start : start + rows] for start in range(0, len(asked), rows))
    ]
    none = [np.empty(0, dtype=np.int64)]
    return np.concatenate(none + of_texts), np.concatenate(none + of_images)


def recall_at(ranks: NDArray[np.int64], k: int) -> float:
    """Share of ranks that are at most k, in percent."""
    _check_some(ranks)
    return float((ranks <= k).mean() * 100)


def median_rank(ranks: NDArray[np.int64]) -> float:
    """The middle rank; 1 is perfect. An even number of ranks gives the mean of the two in the middle."""
    _check_some(ranks)
    return float(np.median(ranks))


# --- one value a query --------------------------------------------------------------------------------------------


def reciprocal_ranks(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks (q,) -> 100 / rank; their mean is the MRR."""
    return np.asarray(100.0 / ranks, np.float64)


def ndcg_of_ranks(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Ranks (q,) of the only right one -> nDCG@k in percent: 100 / log2(1 + rank) up to rank k, else 0."""
    return np.asarray(np.where(ranks <= k, 100.0 / np.log2(1.0 + ranks), 0.0), np.float64)


def ndcg_at(scores: NDArray[Any], gains: NDArray[Any], k: int) -> NDArray[np.float64]:
    """(q, n) scores and gains (0 for what is wrong, 1 or more for what is right) -> nDCG@k (q,) in percent.

    Linear gains over log2(1 + rank), as trec_eval counts (Järvelin and Kekäläinen 2002). A query with no right
    answer has 0.
    """
    ordered = _first_gains(scores, gains, k)
    ideal = -np.sort(-np.asarray(gains, np.float64), axis=1)[:, :k]
    discounts = 1 / np.log2(np.arange(2, ordered.shape[1] + 2))
    best = ideal @ discounts
    return np.asarray(100 * (ordered @ discounts) / np.where(best > 0, best, 1), np.float64)


def average_precision(scores: NDArray[Any], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(q, n) scores, and which of the n are right -> average precision (q,) in percent; its mean is the mAP.

    The mean, over the right ones, of the share of right ones down to there; 0 for a query without any.
    """
    _check(scores)
    found = np.zeros(len(scores))
    for query, (of_query, is_right) in enumerate(zip(scores, right, strict=True)):
        own = -np.sort(-of_query[is_right])  # (r,), best first
        wrong = np.sort(of_query[~is_right])
        before = len(wrong) - np.searchsorted(wrong, own, side="left")  # wrong ones that come first
        nth = np.arange(1, len(own) + 1)
        found[query] = 100 * (nth / (nth + before)).mean() if len(own) else 0
    return found


def precision_at(scores: NDArray[Any], right: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """(q, n) scores, and which of the n are right -> share of right ones among the first k (q,), in percent.

    Divided by k even where there are fewer than k answers, as trec_eval does.
    """
    return np.asarray(_first_gains(scores, right, k).sum(axis=1) * (100 / k), np.float64)


def _first_gains(scores: NDArray[Any], gains: NDArray[Any], k: int) -> NDArray[np.float64]:
    """Gains of the min(k, n) best of each query, best first; among equal scores, the smaller gain comes first."""
    _check(scores)
    k = min(k, scores.shape[1])
    ordered = np.zeros((len(scores), k))
    for query, of_query in enumerate(scores):
        edge = np.partition(of_query, len(of_query) - k)[len(of_query) - k] if k else 0
        near = np.flatnonzero(of_query >= edge)
        order = np.lexsort((gains[query, near], -of_query[near]))[:k]
        ordered[query] = gains[query, near[order]]
    return ordered


def rank_biased_overlap(first: Sequence[Hashable], second: Sequence[Hashable], p: float = 0.9) -> float:
    """How alike two rankings are, 0 to 1: extrapolated RBO for lists of any length (Webber, Moffat, Zobel 2010, eq.
    32). With p = 0.9 the first ten places carry 86 % of the weight. No item twice in one list; both empty gives 1.
    """
    short, long = sorted((first, second), key=len)
    if not long:
        return 1.0
    seen_short: set[Hashable] = set()
    seen_long: set[Hashable] = set()
    s, total, overlap, overlap_at_s = len(short), 0.0, 0, 0
    for depth, item in enumerate(long, 1):
        seen_long.add(item)
        if depth <= s:
            seen_short.add(short[depth - 1])
            overlap += (item in seen_short) + (short[depth - 1] in seen_long and short[depth - 1] != item)
            overlap_at_s = overlap
        else:
            overlap += item in seen_short
            total += overlap_at_s * (depth - s) / (s * depth) * p**depth if s else 0.0
        total += overlap / depth * p**depth
    unseen = (overlap - overlap_at_s) / len(long) + (overlap_at_s / s if s else 0.0)
    return (1 - p) / p * total + unseen * p ** len(long)


# --- how sure -----------------------------------------------------------------------------------------------------


def bootstrap_intervals(
    values: NDArray[Any], groups: NDArray[Any], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """values (q, m): m figures of each query; groups (q,): which queries belong together -> (m, 2) ends of the
    percentile interval of each mean (Efron 1979).

    Whole groups are drawn with replacement: five captions of one image are no five independent queries. The same
    seed gives the same interval. Few groups make it too narrow: with ten, nine of ten such intervals hold the truth.
    """
    sums, counts = _by_group(values, groups)  # (g, m), (g,)
    rng = np.random.default_rng(seed)
    share = np.full(len(counts), 1 / len(counts))
    rows = max(1, _BLOCK_RESAMPLES // len(counts))
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(len(counts), share, size=min(rows, resamples - start)).astype(np.float64)
        means.append((drawn @ sums) / (drawn @ counts)[:, None])  # (r, m)
    ends = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(ends.T, np.float64)


def sign_flip_p(
    differences: NDArray[Any], groups: NDArray[Any], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> NDArray[np.float64]:
    """differences (q, m): what one system has over another on the same queries; groups (q,) -> two-sided p (m,).

    The sign-flip permutation test: were both equally good, the differences of each group might as well have the
    opposite sign. p is the share of random signs, the true ones included, whose sum lies at least as far from 0.
    """
    sums, _ = _by_group(differences, groups)  # (g, m)
    seen = np.abs(sums.sum(axis=0)) * (1 - 1e-9) - 1e-9  # sums in another order differ in their last digits
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK_RESAMPLES // len(sums))
    as_far = np.ones(sums.shape[1])
    for start in range(0, permutations, rows):
        flips = rng.integers(0, 2, (min(rows, permutations - start), len(sums)), np.int8)
        as_far += (np.abs((2.0 * flips - 1.0) @ sums) >= seen).sum(axis=0)
    return np.asarray(as_far / (permutations + 1), np.float64)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Probabilities from `low` to `high`: their share of all, their mean, and the share of them that came true."""

    low: float
    high: float
    share: float
    mean_probability: float
    right: float


def reliability(
    probabilities: NDArray[Any], right: NDArray[np.bool_], weights: NDArray[Any] | None = None, *, bins: int = 10
) -> list[ReliabilityBin]:
    """Probabilities (n,) of n statements, whether each is right (n,), how much each weighs (n,), the same without.
    -> bins of equal width that are not empty, lowest first; 1.0 belongs to the last one."""
    weighed = np.ones(len(probabilities)) if weights is None else np.asarray(weights, np.float64)
    if not len(probabilities) or not len(probabilities) == len(right) == len(weighed):
        raise UsageError("Every probability, and there must be some, needs one outcome and one weight.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all() or weighed.min() < 0 or not weighed.sum():
        raise UsageError("Probabilities lie between 0 and 1, and weights are not negative.")
    which = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        mine = (which == number) & (weighed > 0)
        if mine.any():
            mean = float(np.average(probabilities[mine], weights=weighed[mine]))
            true = float(np.average(right[mine], weights=weighed[mine]))
            share = float(weighed[mine].sum() / weighed.sum())
            found.append(ReliabilityBin(number / bins, (number + 1) / bins, share, mean, true))
    return found


def calibration_error(
    probabilities: NDArray[Any], right: NDArray[np.bool_], weights: NDArray[Any] | None = None, *, bins: int = 10
) -> float:
    """Expected calibration error (Naeini, Cooper, Hauskrecht 2015): the mean distance between what the probabilities of
    a bin say and what came true, by the bins' shares. 0 is perfect."""
    found = reliability(probabilities, right, weights, bins=bins)
    return sum(one.share * abs(one.mean_probability - one.right) for one in found)


def _by_group(values: NDArray[Any], groups: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(q, m) values -> their sums by group (g, m) and the sizes of the groups (g,)."""
    if values.ndim != 2 or groups.shape != (len(values),) or not len(values):
        raise UsageError(f"Values {values.shape} need two dimensions, at least one query, and one group each.")
    _, which = np.unique(groups, return_inverse=True)
    counts: NDArray[np.float64] = np.bincount(which).astype(np.float64)
    sums: NDArray[np.float64] = np.stack(
        [np.bincount(which, weights=column) for column in np.asarray(values, np.float64).T], axis=1
    )
    return sums, counts


def _check(scores: NDArray[Any]) -> None:
    if not np.isfinite(scores).all():
        raise UsageError("Some scores are not numbers; the encoder that made them is broken.")


def _check_some(ranks: NDArray[np.int64]) -> None:
    if not len(ranks):
        raise UsageError("There are no ranks to take a figure of.")
