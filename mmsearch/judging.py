"""A test set and the vectors that an encoder gives it -> figures, how sure they are, and how two encoders differ.

In percent throughout, but for ranks. Directions: a text looks for pictures (`t2i`), a picture looks for its captions
(`i2t`), a picture looks for others of its label (`i2i`).

    captions   t2i: each caption for its picture; i2t: each picture for any of its captions (nDCG: for all of them).
               R@1, R@5, R@10, MRR, nDCG@10
    labels     t2i: each label for its pictures; i2i: each picture for the others of its label. mAP, P@10

Intervals and p-values take queries for a sample of what might be asked: whole pictures are drawn with all their
captions, labels are drawn as queries, and for i2i the pictures are drawn with the labels taken as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mmsearch import metrics
from mmsearch.testsets import Captioned, Labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

Direction = Literal["t2i", "i2t", "i2i"]

CUT = 10  # how far down P@k and nDCG@k look: a page of answers
LEAST_GROUPS = 10  # with fewer independent queries, an interval or a p-value would only pretend to know
SIGNIFICANT = 0.05
MOST_PICTURE_QUERIES = 2_000  # pictures that look for others of their label
_BLOCK_SCORES = 1 << 24

OF_CAPTIONS = ("R@1", "R@5", "R@10", "MRR", f"nDCG@{CUT}")
OF_LABELS = ("mAP", f"P@{CUT}")


@dataclass(frozen=True, slots=True)
class Figures:
    """Recalls in percent; the median rank counts from 1."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean in percent and its 95 % interval; no interval where the queries are too few for one."""

    direction: Direction
    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What a second encoder has over a first on the same queries, in points, with a 95 % interval and a two-sided p;
    None where the queries are too few."""

    direction: Direction
    name: str
    value: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How well one label finds its pictures: average precision in percent."""

    label: str
    images: int
    average_precision: float


@dataclass(frozen=True, slots=True)
class Values:
    """What came out of each query of one direction: values (q, m) for the m names; groups (q,): which queries depend
    on one another; ranks (q,) of the right one, where one is right."""

    direction: Direction
    names: tuple[str, ...]
    values: NDArray[np.float64]
    groups: NDArray[np.int64]
    ranks: NDArray[np.int64] | None = None


def judge(test: Captioned | Labelled, images: NDArray[np.float32], texts: NDArray[np.float32]) -> tuple[Values, ...]:
    """images (n, d) and texts (t, d) of the set, unit length, in its order -> what each query gave."""
    return _captions(test, images, texts) if isinstance(test, Captioned) else _labels(test, images, texts)


def figures(values: Values) -> Figures:
    """The four figures of a direction that has ranks."""
    assert values.ranks is not None
    at_1, at_5, at_10 = (metrics.recall_at(values.ranks, k) for k in (1, 5, 10))
    return Figures(at_1, at_5, at_10, metrics.median_rank(values.ranks))


def measures(judged: Sequence[Values]) -> tuple[Measure, ...]:
    """Means and intervals, direction by direction."""
    found = []
    for one in judged:
        ends = _intervals(one.values, one.groups)
        for name, value, (low, high) in zip(one.names, one.values.mean(axis=0), ends, strict=True):
            found.append(Measure(one.direction, name, float(value), low, high))
    return tuple(found)


def differences(first: Sequence[Values], second: Sequence[Values]) -> tuple[Difference, ...]:
    """Second minus first, on the same queries."""
    found = []
    for one, other in zip(first, second, strict=True):
        change = other.values - one.values
        enough = _enough(one.groups)
        p_values = metrics.sign_flip_p(change, one.groups).tolist() if enough else [None] * len(one.names)
        ends = _intervals(change, one.groups)
        for name, value, (low, high), p in zip(one.names, change.mean(axis=0), ends, p_values, strict=True):
            found.append(Difference(one.direction, name, float(value), low, high, p))
    return tuple(found)


def label_figures(test: Labelled, judged: Sequence[Values]) -> tuple[LabelFigures, ...]:
    """Each label by itself, in the set's order."""
    of_labels = next(one for one in judged if one.direction == "t2i")
    sizes = test.right.sum(axis=1).tolist()
    found = of_labels.values[:, of_labels.names.index("mAP")].tolist()
    return tuple(LabelFigures(*one) for one in zip(test.texts, sizes, found, strict=True))


def _enough(groups: NDArray[np.int64]) -> bool:
    return len(np.unique(groups)) >= LEAST_GROUPS


def _intervals(values: NDArray[np.float64], groups: NDArray[np.int64]) -> list[tuple[float | None, float | None]]:
    if not _enough(groups):
        return [(None, None)] * values.shape[1]
    return [(low, high) for low, high in metrics.bootstrap_intervals(values, groups).tolist()]


# --- captions -----------------------------------------------------------------------------------------------------


def _captions(test: Captioned, images: NDArray[np.float32], texts: NDArray[np.float32]) -> tuple[Values, ...]:
    of_texts, of_images = metrics.retrieval_ranks(images, texts, test.owners)
    asked = np.unique(test.owners)
    gains = _caption_gains(images[asked], texts, test.owners, asked)
    return (
        Values("t2i", OF_CAPTIONS, _of_ranks(of_texts, metrics.ndcg_of_ranks(of_texts, CUT)), test.owners, of_texts),
        Values("i2t", OF_CAPTIONS, _of_ranks(of_images, gains), asked, of_images),
    )


def _of_ranks(ranks: NDArray[np.int64], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks (q,) and nDCG (q,) -> the columns of OF_CAPTIONS."""
    recalls = [np.where(ranks <= k, 100.0, 0.0) for k in (1, 5, 10)]
    return np.stack([*recalls, metrics.reciprocal_ranks(ranks), gains], axis=1)


def _caption_gains(
    images: NDArray[np.float32], texts: NDArray[np.float32], owners: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.float64]:
    """nDCG of pictures (m, d) that look for all their captions; asked (m,): their rows in the set."""
    rows = max(1, _BLOCK_SCORES // len(texts))
    return np.concatenate(
        [
            metrics.ndcg_at(images[start : start + rows] @ texts.T, asked[start : start + rows, None] == owners, CUT)
            for start in range(0, len(asked), rows)
        ]
    )


# --- labels -------------------------------------------------------------------------------------------------------


def _labels(test: Labelled, images: NDArray[np.float32], texts: NDArray[np.float32]) -> tuple[Values, ...]:
    rows = max(1, _BLOCK_SCORES // len(images))
    of_texts = [
        _of_rankings(texts[start : start + rows] @ images.T, test.right[start : start + rows])
        for start in range(0, len(texts), rows)
    ]
    labels = np.arange(len(texts))
    found = [Values("t2i", OF_LABELS, np.concatenate(of_texts), labels)]

    in_company = test.right[test.right.sum(axis=1) > 1].any(axis=0)  # (n,): another picture shares a label
    asked = np.flatnonzero(in_company)
    if len(asked) > MOST_PICTURE_QUERIES:
        asked = asked[np.linspace(0, len(asked) - 1, MOST_PICTURE_QUERIES).astype(np.int64)]
    if len(asked):
        blocks = [asked[start : start + rows] for start in range(0, len(asked), rows)]
        of_images = [_others(test.right, images, block) for block in blocks]
        found.append(Values("i2i", OF_LABELS, np.concatenate(of_images), asked))
    return tuple(found)


def _others(right: NDArray[np.bool_], images: NDArray[np.float32], block: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pictures of a block against all others: itself is no answer."""
    shared = right[:, block].T.astype(np.float32) @ right.astype(np.float32) > 0  # (b, n)
    scores = images[block] @ images.T
    others = np.ones(scores.shape, bool)
    others[np.arange(len(block)), block] = False
    shape = (len(block), scores.shape[1] - 1)
    return _of_rankings(scores[others].reshape(shape), shared[others].reshape(shape))


def _of_rankings(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores and what is right, both (q, n) -> the columns of OF_LABELS."""
    return np.stack([metrics.average_precision(scores, right), metrics.precision_at(scores, right, CUT)], axis=1)
