"""What is held out, as figures with intervals: which queries depend on one another, over all parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch import judging  # noqa: E402
from mmsearch.judging import Values  # noqa: E402
from mmsearch.nn.dual_encoder import DualEncoder  # noqa: E402
from mmsearch.testsets import Captioned, Labelled  # noqa: E402
from mmsearch.training.build import adapter  # noqa: E402
from mmsearch.training.held_out import HeldOut  # noqa: E402
from mmsearch.training.measuring import compared, judged, together  # noqa: E402
from mmsearch.training.rows import Rows  # noqa: E402

CPU = torch.device("cpu")


def part(pictures: list[list[str]], seed: int = 0) -> tuple[Captioned, tuple[Values, ...]]:
    """Captions of each picture -> the set, and what each query gave among random vectors."""
    texts = tuple(text for own in pictures for text in own)
    owners = np.array([row for row, own in enumerate(pictures) for _ in own], np.int64)
    test = Captioned("the test", tuple(range(len(pictures))), texts, owners)
    return test, judging.judge(test, unit(len(pictures), seed), unit(len(texts), seed + 1))


def unit(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def grouped(folds: list[tuple[Captioned, tuple[Values, ...]]]) -> list[int]:
    return next(one for one in together(folds) if one.direction == "t2i").groups.tolist()


def test_pictures_that_share_a_caption_are_one_group_over_all_parts() -> None:
    """`a pet` links the first picture to the third, `a dog` to the second and, in the other part, to the last."""
    first = part([["A dog.", "a pet"], ["a dog"], ["A PET", "a cat!"], ["a tree"]])
    second = part([["a house"], ["a  dog"], ["a Tree"]])
    assert grouped([first, second]) == [0, 0, 0, 0, 0, 1, 2, 0, 1]
    of_pictures = next(one for one in together([first, second]) if one.direction == "i2t")
    assert of_pictures.groups.tolist() == [0, 1, 2, 3, 4, 5, 6]
    for direction, values in enumerate(("t2i", "i2t")):
        whole = next(one for one in together([first, second]) if one.direction == values)
        np.testing.assert_array_equal(
            whole.values, np.concatenate([first[1][direction].values, second[1][direction].values])
        )


WORDS = st.sampled_from(["a", "B", "c.", "C", "d", "D!", "e", "f", "g", "h"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=6), min_size=1, max_size=3))
def test_groups_are_what_a_walk_from_picture_to_picture_reaches(folds: list[list[list[str]]]) -> None:
    pictures = [{text.lower().strip(".!") for text in own} for fold in folds for own in fold]
    owners = [row for row, own in enumerate(own for fold in folds for own in fold) for _ in own]

    def reached(start: int) -> set[int]:
        seen, rest = {start}, [start]
        while rest:
            at = rest.pop()
            more = {row for row, own in enumerate(pictures) if own & pictures[at]} - seen
            seen |= more
            rest += more
        return seen

    found = grouped([part(fold) for fold in folds])
    for one, group in zip(owners, found, strict=True):
        for other, other_group in zip(owners, found, strict=True):
            assert (group == other_group) == (other in reached(one))


def test_labels_stay_groups_of_their_own_over_parts() -> None:
    right = np.array([[True, True, False], [False, False, True]])
    tests = [Labelled("the test", (1, 2, 3), texts, right) for texts in (("cat", "dog"), ("bird", "cat"))]
    folds = [(test, judging.judge(test, unit(3, 0), unit(2, 1))) for test in tests]
    found = together(folds)
    assert [(one.direction, one.groups.tolist()) for one in found] == [("t2i", [0, 1, 2, 0]), ("i2i", [0, 1, 3, 4])]


def side(kinds: int, pictures: int) -> HeldOut:
    test, _ = part([[f"A photo of kind {row % kinds}."] for row in range(pictures)])
    places = np.stack([np.zeros(pictures, np.int64), np.arange(pictures)], axis=1)
    return HeldOut(test, Rows([unit(pictures, 3)], places), Rows([unit(pictures, 4)], places))


def moved() -> DualEncoder:
    encoder = adapter(5).encoder
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.3)
    return encoder


@pytest.mark.parametrize(("kinds", "sure"), [(9, False), (10, True), (60, True)])
def test_few_different_captions_are_few_queries_however_many_pictures(kinds: int, sure: bool) -> None:
    """By hand: kinds are drawn, each with all its pictures, 20,000 times."""
    one = side(kinds, 60)
    before, after = judged(adapter(5).encoder, one, CPU), judged(moved(), one, CPU)
    main = compared("the test", before, after).main
    assert (main.direction, main.low is not None) == ("t2i", sure)
    if not sure:
        return
    change = (after[0].values - before[0].values)[:, 2]
    of_kinds = np.array([[change[kind::kinds].sum(), len(change[kind::kinds])] for kind in range(kinds)])
    drawn = of_kinds[np.random.default_rng(9).integers(0, kinds, (20_000, kinds))].sum(axis=1)
    ends = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    assert [main.low, main.high] == pytest.approx(ends.tolist(), abs=1.7)  # one picture of 60
