"""How good a ranking is: ranks, recall at k, median rank. In: unit vectors or a score matrix. Out: numbers.

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
nothing, and an encoder that gives everything the same score ends in the middle instead of on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Scores that are held at once: 64 MB of float32, whatever the size of the set.
_BLOCK_SCORES = 1 << 24


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


def _check(scores: NDArray[Any]) -> None:
    if not np.isfinite(scores).all():
        raise UsageError("Some scores are not numbers; the encoder that made them is broken.")


def _check_some(ranks: NDArray[np.int64]) -> None:
    if not len(ranks):
        raise UsageError("There are no ranks to take a figure of.")
