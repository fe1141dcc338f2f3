"""Who is held out: by content, whoever else is there; and never on two sides."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import UsageError
from mmsearch.training.examples import Supervised
from mmsearch.training.picture import Picture, Side
from mmsearch.training.splits import Sides, by_caption, by_picture, folds


def picture(one: int, key: str = "", split: Side | None = None, captions: int = 1) -> Picture:
    content = hashlib.sha256(str(one).encode()).hexdigest()
    said = tuple(f"caption {text} of {one}" for text in range(captions))
    return Picture(key or f"no {one}.png", Path(f"{one}.png"), content, lambda: b"", said, (), split)


def supervised(pictures: list[Picture]) -> Supervised:
    return Supervised("the test", tuple(pictures))


def contents(pictures: tuple[Picture, ...]) -> set[str]:
    return {one.content for one in pictures}


def divided(pictures: list[Picture], **shares: float) -> Sides:
    return by_picture([supervised(pictures)], **shares)[0]  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5))
def test_a_side_does_not_depend_on_order_or_on_other_pictures(sample: int, seed: int) -> None:
    whole = [picture(one) for one in range(1200)]
    all_of_them = by_picture([supervised(whole)], seed=seed)[0]
    part = random.Random(sample).sample(whole, 700)
    some = by_picture([supervised(part)], seed=seed)[0]
    for side in ("train", "dev", "test"):
        assert contents(getattr(some, side)) == contents(getattr(all_of_them, side)) & contents(tuple(part))
    assert 0.06 < len(all_of_them.dev) / 1200 < 0.14
    assert 0.06 < len(all_of_them.test) / 1200 < 0.14


def test_another_seed_and_another_share_give_other_sides() -> None:
    whole = [picture(one) for one in range(1000)]
    first, second = divided(whole, seed=0), divided(whole, seed=1)
    assert len(contents(first.dev) & contents(second.dev)) < 30
    wide = divided(whole, dev=0.3, test=0)
    assert contents(first.dev) < contents(wide.dev)
    assert wide.test == ()


@pytest.mark.parametrize("count", [10, 11, 25, 60, 150])
def test_small_sets_hold_some_out_and_keep_at_least_half(count: int) -> None:
    sides = divided([picture(one) for one in range(count)])
    assert min(20, count // 4) <= len(sides.dev)
    assert min(20, count // 4) <= len(sides.test)
    assert len(sides.train) >= count / 2
    assert contents(sides.train) | contents(sides.dev) | contents(sides.test) == contents(
        tuple(picture(one) for one in range(count))
    )
    assert len(sides.train) + len(sides.dev) + len(sides.test) == count


def test_copies_stay_together() -> None:
    whole = [picture(one * 3 + copy, f"p{one}{' (1)' * copy}.jpg") for one in range(300) for copy in range(2)]
    sides = divided(whole)
    side_of = {one.key: name for name in ("train", "dev", "test") for one in getattr(sides, name)}
    assert set(side_of.values()) == {"train", "dev", "test"}
    assert all(side_of[f"p{one}.jpg"] == side_of[f"p{one} (1).jpg"] for one in range(300))


def test_folds_are_even_and_copies_lie_in_one() -> None:
    whole = [picture(one * 3 + copy, f"p{one}{' (1)' * copy}.jpg") for one in range(100) for copy in range(2)]
    parts = folds(whole, 4)
    assert [len(part) for part in parts] == [50] * 4
    assert set().union(*(contents(tuple(part)) for part in parts)) == contents(tuple(whole))
    for part in parts:
        keys = {one.key for one in part}
        assert {key.replace(" (1)", "") for key in keys} == {key for key in keys if "(" not in key}
    assert [contents(tuple(part)) for part in folds(whole[::-1], 4)] == [contents(tuple(part)) for part in parts]


def test_sides_that_a_set_names_are_kept_and_copies_go_along() -> None:
    whole: list[Picture] = [
        *(picture(one, split="train") for one in range(100)),
        *(picture(one, split="test") for one in range(100, 110)),
        picture(200, "no 105 copy.png"),
    ]
    sides = divided(whole)
    assert contents(sides.test) == contents((*whole[100:110], whole[110]))
    assert len(sides.dev) >= 20  # there is no dev.txt: taken from what is trained on
    named = [*whole, picture(300, split="dev")]
    assert contents(divided(named).dev) == contents((named[-1],))
    assert contents(divided(named).train) == contents(tuple(whole[:100]))


def test_what_one_set_holds_out_no_other_trains_on() -> None:
    one = [picture(number) for number in range(200)]
    two = [picture(number, split="test" if number < 30 else "train") for number in range(100)]
    sides = by_picture([supervised(one), supervised(two)])
    held = set().union(*(contents(side.dev) | contents(side.test) for side in sides))
    assert all(not contents(side.train) & held for side in sides)
    assert not contents(sides[0].dev) & contents(sides[1].test)
    assert "held out in another set" in sides[0].notices[0]


def test_shares_and_sets_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"together at most 0\.5"):
        divided([picture(one) for one in range(50)], dev=0.3, test=0.3)
    with pytest.raises(UsageError, match="cannot be divided: 0 are left"):
        divided([picture(one, split="test") for one in range(20)])
    with pytest.raises(UsageError, match="cannot be divided"):  # all of one family
        divided([picture(one, f"a ({one}).png") for one in range(8)])


def test_whole_folders_that_were_numbered_are_no_copies() -> None:
    sides = divided([picture(one, f"holiday ({one}).png") for one in range(200)])
    assert len(sides.train) + len(sides.dev) + len(sides.test) == 200
    assert min(len(sides.dev), len(sides.test)) >= 20


def test_the_split_by_caption_leaks_and_says_so() -> None:
    whole = [picture(one, captions=5) for one in range(400)]
    sides = by_caption(supervised(whole))
    pairs = {
        side: {(one.content, text) for one in getattr(sides, side) for text in one.captions}
        for side in ("train", "dev")
    }
    assert not pairs["train"] & pairs["dev"]
    assert len(pairs["train"] | pairs["dev"]) == 2000
    assert 0.17 < len(pairs["dev"]) / 2000 < 0.23
    seen = contents(sides.train) & contents(sides.dev)
    assert len(seen) > 200
    assert f"{len(seen)} of {len(sides.dev)} held-out pictures are trained on" in sides.notices[0]
    again = by_caption(supervised(whole[::-1]))
    assert contents(again.dev) == contents(sides.dev)
    with pytest.raises(UsageError, match="too few captions"):
        by_caption(supervised([]))
