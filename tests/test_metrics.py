"""Ranks, recall and median against hand-worked matrices and a loop that counts one by one."""

from __future__ import annotations

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
