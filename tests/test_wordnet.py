"""WordNet as training reads it, on a made-up one that is small enough to see through."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install 'mmsearch[train]'")

from mmsearch.errors import UsageError  # noqa: E402
from mmsearch.training import wordnet  # noqa: E402
from mmsearch.training.knowledge import sayings  # noqa: E402
from mmsearch.training.wordnet import Noun  # noqa: E402

# 1 thing > 2 fruit > 3 fig, 4 lemon; 2 > 5 quince, which is no class; 6 date, an appointment; 7 date, a fruit
DATA = """  1 This is a licence.
00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | anything
00000002 13 n 02 fruit 0 Fructus 0 003 @ 00000001 n 0000 ~ 00000003 n 0000 + 00000009 v 0101 | ripe; "a ripe fruit"
00000003 13 n 02 fig 0 fig_of_commerce 0 001 @ 00000002 n 0000 | sweet
00000004 13 n 01 lemon 0 001 @ 00000002 n 0000 | sour
00000005 13 n 01 quince 0 001 @ 00000002 n 0000 | hard and sour
00000006 28 n 01 date 0 001 @ 00000001 n 0000 | a day
00000007 13 n 01 date 1 001 @ 00000003 n 0000 | of a palm
"""
INDEX = """  1 This is a licence.
thing n 1 1 ~ 1 0 00000001
fruit n 1 2 @ ~ 1 0 00000002
fig n 1 1 @ 1 0 00000003
fig_of_commerce n 1 1 @ 1 0 00000003
lemon n 1 1 @ 1 0 00000004
quince n 1 1 @ 1 0 00000005
date n 2 1 @ 2 1 00000006 00000007
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    monkeypatch.setattr(wordnet, "WORDNET", tmp_path)


@pytest.mark.usefixtures("small")
def test_nouns_know_their_kinds_or_their_relatives() -> None:
    found = {noun.names[0]: noun for noun in wordnet.nouns([3, 4])}
    assert found["fruit"] == Noun(2, ("fruit",), "ripe", (0, 1), kinds=True)  # Latin names begin with a capital
    assert found["fig"] == Noun(3, ("fig", "fig of commerce"), "sweet", (0,), kinds=True)
    assert found["quince"] == Noun(5, ("quince",), "hard and sour", (0, 1), kinds=False)
    assert found["date"] == Noun(7, ("date",), "of a palm", (0,), kinds=False)  # the first meaning cannot be seen
    assert set(found) == {"fruit", "fig", "lemon", "quince", "date"}  # "thing" is nothing that can be seen


@pytest.mark.usefixtures("small")
def test_sayings_are_spread_over_kinds_evenly_and_over_relatives_by_nearness() -> None:
    def states(texts: list[str]) -> torch.Tensor:
        """First number: how sour; second: how sweet."""
        return torch.tensor([[float("sour" in t or "lemon" in t) + 0.1, float("fig" in t) + 0.1] for t in texts])

    made = sayings(["fig", "lemon"], ["A sweet thing.", "A sour thing."], wordnet.nouns([3, 4]), states)
    targets = {texts[0]: target for group in made.groups[1:] for texts, target in group}
    assert targets["fruit"].tolist() == [0.5, 0.5]
    assert targets["quince"][1] > 0.9
    assert targets["date"].tolist() == [1, 0]
    texts, meant = made.draw(50, random.Random(0))
    assert meant.shape == (50, 2)
    assert meant.sum(1).tolist() == pytest.approx([1] * 50)
    assert {text: row.tolist() for text, row in zip(texts, meant, strict=True)}["quince"] == targets["quince"].tolist()


def test_a_missing_wordnet_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "WORDNET", tmp_path)
    with pytest.raises(UsageError, match="apt-get install wordnet-base"):
        wordnet.nouns([1])
