"""Figures of hand-worked sets, their intervals, and what two encoders differ in; a plain loop as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import judging, metrics
from mmsearch.testsets import Captioned, Labelled


def unit(rows: object) -> NDArray[np.float32]:
    array = np.asarray(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def at(*degrees: float) -> NDArray[np.float32]:
    """Directions on a circle: the nearer two angles, the higher their score."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def named(values: judging.Values) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in zip(values.names, values.values.T, strict=True)}


def test_captions_worked_by_hand() -> None:
    test = Captioned("", ("a", "b", "c"), ("a1", "a2", "b1"), np.array([0, 0, 1]))
    # Pictures at 0, 40, 90 degrees; the texts at -5 (right at once), 30 (b is nearer: rank 2), 80 (c is nearer: 2).
    of_texts, of_images = judging.judge(test, at(0, 40, 90), at(-5, 30, 80))
    assert (of_texts.direction, of_texts.groups.tolist()) == ("t2i", [0, 0, 1])
    assert named(of_texts)["R@1"] == [100, 0, 0]
    assert named(of_texts)["R@5"] == [100, 100, 100]
    assert named(of_texts)["MRR"] == [100, 50, 50]
    assert named(of_texts)["nDCG@10"] == pytest.approx([100, 100 / np.log2(3), 100 / np.log2(3)])
    # a: its own at -5 and 30, then b's at 80: all right. b: a's at 30 first, then its own at 80, 40 away, then -5.
    # With an ideal of one right answer, nDCG is what the second place gives.
    assert (of_images.direction, of_images.groups.tolist()) == ("i2t", [0, 1])
    assert named(of_images)["R@1"] == [100, 0]
    assert named(of_images)["nDCG@10"] == pytest.approx([100, 100 / np.log2(3)])
    assert of_images.ranks is not None
    assert of_images.ranks.tolist() == [1, 2]
    found = judging.figures(of_images)
    assert (found.recall_at_1, found.recall_at_5, found.median_rank) == (50, 100, 1.5)


def test_labels_worked_by_hand() -> None:
    right = np.array([[True, True, False, False], [False, False, True, False], [False, False, False, True]])
    test = Labelled("", ("a1", "a2", "b", "c"), ("a", "b", "c"), right)
    of_labels, of_images = judging.judge(test, at(0, 50, 30, 170), at(0, 40, 180))
    # a at 0: a1, then b, then a2: AP (1 + 2/3) / 2. b at 40: a2 and b are as far: wrong ones come first, so 1/2. c: 1.
    assert named(of_labels)["mAP"] == pytest.approx([100 * (1 + 2 / 3) / 2, 50, 100], abs=1e-3)
    assert named(of_labels)["P@10"] == pytest.approx([20, 10, 10])
    # Only the two of label a have company. a1 at 0: b (30), a2 (50): AP 1/2. a2 at 50: b (20), a1 (50): 1/2.
    assert (of_images.direction, of_images.groups.tolist()) == ("i2i", [0, 1])
    assert named(of_images)["mAP"] == [50, 50]
    assert named(of_images)["P@10"] == [10, 10]
    labels = judging.label_figures(test, (of_labels, of_images))
    assert [(one.label, one.images) for one in labels] == [("a", 2), ("b", 1), ("c", 1)]
    assert labels[2].average_precision == pytest.approx(100)


def slow_average_precision(scores: NDArray[np.float32], right: list[bool]) -> float:
    order = sorted(range(len(scores)), key=lambda one: (-scores[one], right[one]))
    found, total = 0, 0.0
    for place, one in enumerate(order, 1):
        if right[one]:
            found += 1
            total += found / place
    return 100 * total / found


def test_pictures_with_several_labels_against_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((4, 30)) < 0.2
    right[0, 0] = right[1, 1] = right[2, 2] = right[3, 3] = True
    images, texts = unit(rng.normal(size=(30, 6))), unit(rng.normal(size=(4, 6)))
    test = Labelled("", tuple(range(30)), ("a", "b", "c", "d"), right)
    monkeypatch.setattr(judging, "_BLOCK_SCORES", 100)  # several blocks
    of_labels, of_images = judging.judge(test, images, texts)
    for label in range(4):
        expected = slow_average_precision(texts[label] @ images.T, right[label].tolist())
        assert named(of_labels)["mAP"][label] == pytest.approx(expected)
    asked = iter(zip(of_images.groups.tolist(), named(of_images)["mAP"], strict=True))
    for image in range(30):
        others = [other for other in range(30) if other != image]
        shared = [bool((right[:, image] & right[:, other]).any()) for other in others]
        if any(shared):
            number, found = next(asked)
            assert number == image
            assert found == pytest.approx(slow_average_precision(images[others] @ images[image], shared))
    assert next(asked, None) is None


def test_many_picture_queries_are_sampled_over_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST_PICTURE_QUERIES", 5)
    right = np.repeat(np.eye(2, dtype=bool), 50, axis=1)
    images = unit(np.random.default_rng(1).normal(size=(100, 4)))
    _, of_images = judging.judge(Labelled("", tuple(range(100)), ("a", "b"), right), images, at(0, 90) @ np.eye(2, 4))
    assert of_images.groups.tolist() == [0, 24, 49, 74, 99]


def test_labels_of_one_picture_each_have_no_picture_queries() -> None:
    made = judging.judge(Labelled("", ("a", "b"), ("a", "b"), np.eye(2, dtype=bool)), at(0, 90), at(1, 91))
    assert [one.direction for one in made] == ["t2i"]


def captioned() -> tuple[Captioned, NDArray[np.float32]]:
    """40 pictures in random directions, three texts each."""
    images = unit(np.random.default_rng(2).normal(size=(40, 8)))
    return Captioned("", tuple(range(40)), tuple(map(str, range(120))), np.repeat(np.arange(40), 3)), images


def texts_near(images: NDArray[np.float32], noise: float, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return unit(np.repeat(images, 3, axis=0) + rng.normal(0, noise, (120, 8)))


def test_measures_come_with_the_interval_of_their_groups() -> None:
    test, images = captioned()
    judged = judging.judge(test, images, texts_near(images, 0.4, 3))
    found = judging.measures(judged)
    assert [(one.direction, one.name) for one in found] == [
        (way, name) for way in ("t2i", "i2t") for name in ("R@1", "R@5", "R@10", "MRR", "nDCG@10")
    ]
    for one, ends in zip(found[:5], metrics.bootstrap_intervals(judged[0].values, test.owners), strict=True):
        assert (one.low, one.high) == pytest.approx(tuple(ends))
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
    assert found[3].value == pytest.approx(float((100 / judged[0].ranks).mean()))  # type: ignore[operator]


def test_a_better_encoder_is_told_from_an_equal_one() -> None:
    test, images = captioned()
    good, as_good, bad = (
        judging.judge(test, images, texts_near(images, noise, seed)) for noise, seed in ((0.3, 4), (0.3, 5), (0.9, 6))
    )
    worse = judging.differences(good, bad)[0]
    assert (worse.direction, worse.name, worse.significant) == ("t2i", "R@1", True)
    assert worse.value == pytest.approx(bad[0].values[:, 0].mean() - good[0].values[:, 0].mean())
    assert worse.high is not None
    assert worse.high < 0
    assert [one.significant for one in judging.differences(good, as_good)] == [False] * 10
    same = judging.differences(good, good)
    assert {(one.value, one.low, one.high, one.p) for one in same} == {(0, 0, 0, 1)}


def test_few_queries_have_no_interval() -> None:
    test = Captioned("", tuple(range(9)), tuple("abcdefghi"), np.arange(9))
    judged = judging.judge(test, at(*range(0, 90, 10)), at(*range(0, 90, 10)))
    assert {(one.value, one.low, one.high) for one in judging.measures(judged)} == {(100, None, None)}
    assert {(one.p, one.significant) for one in judging.differences(judged, judged)} == {(None, False)}
