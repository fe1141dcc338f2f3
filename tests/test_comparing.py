"""What another model changes, on collections small enough to say by hand what it must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmsearch import Engine, Query, Term
from mmsearch.errors import MMSearchError, SpaceNotFoundError, UsageError
from mmsearch.metrics import rank_biased_overlap
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder


class Mistaken(ToyEncoder):
    """Takes every picture for its negative; its texts are as they were."""

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return 255 - super().prepare(picture)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of each of eight colours, each with a caption that names it."""
    for colour in COLOURS:
        for number in range(3):
            path = paint(tmp_path / "images" / colour / f"{number}.png", colour, number)
            path.with_suffix(".txt").write_text(f"{colour} {'abc'[number]}")
    return tmp_path / "images"


def indexed(folder: Path, pictures: Path, *encoders: ToyEncoder) -> Engine:
    for encoder in encoders:
        with Engine.open(folder, model=encoder) as engine:
            engine.index(pictures)
    return Engine.open(folder, model=encoders[0])


def test_equal_models_change_nothing(tmp_path: Path, pictures: Path) -> None:
    old, new = ToyEncoder("old"), ToyEncoder("new")
    with indexed(tmp_path / "c", pictures, old, new) as engine:
        engine.save_query("reds", "red")
        engine.save_query("by caption", Query((Term(text="blue"),), find="captions", k=3))
        made = engine.compare(old, new, k=5)
    assert [(one.name, one.stay, one.of, one.come, one.go) for one in made.queries] == [
        ("by caption", 5, 5, (), ()),
        ("reds", 5, 5, (), ()),
    ]
    assert [one.overlap for one in made.queries] == pytest.approx([1, 1])
    assert (made.old.encoder, made.old.encoded, made.old.images, made.old.current) == ("old", 24, 24, False)
    assert (made.new.encoder, made.new.encoded, made.new.current) == ("new", 24, True)
    assert made.evaluation is not None
    assert made.no_evaluation is None
    assert {(one.value, one.p) for one in made.evaluation.differences} == {(0, 1)}


def test_a_worse_model_is_found_out(tmp_path: Path, pictures: Path) -> None:
    old, new = ToyEncoder("old"), Mistaken("new")
    with indexed(tmp_path / "c", pictures, old, new) as engine:
        engine.save_query("black", "black")
        made = engine.compare(old, new, k=3)
        before, after = (
            [hit.path.parent.name for hit in Engine.open(engine.folder, model=one).search("black", k=3) if hit.path]
            for one in (old, new)
        )
    assert (before, after) == (["black"] * 3, ["white"] * 3)
    (changed,) = made.queries
    assert (changed.stay, changed.of, changed.overlap, changed.error) == (0, 3, 0, None)
    assert [hit.path.parent.name for hit in changed.come if hit.path] == after
    assert [hit.path.parent.name for hit in changed.go if hit.path] == before
    assert [hit.rank for hit in changed.come] == [1, 2, 3]
    assert made.evaluation is not None
    first = made.evaluation.differences[0]
    assert made.evaluation.rival is not None
    assert first.value == made.evaluation.rival.measures[0].value - made.evaluation.measures[0].value
    assert next(one for one in made.evaluation.differences if one.name == "R@5").value < -50
    assert next(one for one in made.evaluation.differences if one.name == "R@5").significant


def test_a_model_that_is_not_complete_is_compared_on_what_it_has(tmp_path: Path, pictures: Path) -> None:
    old, new = ToyEncoder("old"), ToyEncoder("new")
    with indexed(tmp_path / "c", pictures, old) as engine:
        engine.save_query("reds", "red")
        with Engine.open(engine.folder, model=new) as second:
            second.index([pictures / "blue", pictures / "green", pictures / "orange", pictures / "yellow"])
        made = engine.compare(old, new, k=4)
        assert (made.new.encoded, made.new.images, made.new.current) == (12, 24, False)
        # Without this, the three red ones that the new model lacks would count as gone.
        assert [(one.stay, one.of, one.go) for one in made.queries] == [(4, 4, ())]
        assert {hit.path.parent.name for hit in engine.search("red", k=3) if hit.path} == {"red"}
    assert made.evaluation is not None
    assert (made.evaluation.images, made.evaluation.captions) == (12, 12)


def test_one_query_that_cannot_be_asked_costs_that_query_only(tmp_path: Path, pictures: Path) -> None:
    old, new = ToyEncoder("old"), ToyEncoder("new")
    example = paint(tmp_path / "example.png", "red", 9)
    with indexed(tmp_path / "c", pictures, old, new) as engine:
        engine.save_query("like it", Query((Term(picture=example),)))
        engine.save_query("reds", "red")
        example.unlink()
        gone, reds = engine.compare(old, new).queries
    assert gone.error is not None
    assert "example.png" in gone.error
    assert (gone.stay, gone.of) == (0, 0)
    assert reds.error is None
    assert reds.stay == 10


def test_without_a_test_set_it_says_why(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "a.png", "red")
    old, new = ToyEncoder("old"), ToyEncoder("new")
    with indexed(tmp_path / "c", tmp_path / "images", old, new) as engine:
        made = engine.compare(old, new)
    assert (made.queries, made.evaluation) == ((), None)
    assert made.no_evaluation is not None
    assert "pictures with a caption of their own: 0" in made.no_evaluation


def test_what_cannot_be_compared(tmp_path: Path, pictures: Path) -> None:
    old = ToyEncoder("old")
    with indexed(tmp_path / "c", pictures, old) as engine:
        with pytest.raises(SpaceNotFoundError, match="no vectors of the model new"):
            engine.compare(old, ToyEncoder("new"))
        with pytest.raises(UsageError, match="Both models are old"):
            engine.compare(old, "old")
        with pytest.raises(UsageError, match="k is 0"):
            engine.compare(old, old, k=0)
    with Engine.open(tmp_path / "empty") as empty, pytest.raises(MMSearchError):
        empty.compare("lite", "other")


def test_the_order_of_answers_counts_too(tmp_path: Path, pictures: Path) -> None:
    class Tilted(ToyEncoder):
        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            rows = super().encode_texts(texts) + np.float32([*[0.02, -0.03, 0.01, 0.04] * 3, 0])
            return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    old, new = ToyEncoder("old"), Tilted("new")
    with indexed(tmp_path / "c", pictures, old, new) as engine:
        engine.save_query("all", "red")
        (changed,) = engine.compare(old, new, k=24).queries
        orders = [[hit.id for hit in Engine.open(engine.folder, model=one).search("red", k=24)] for one in (old, new)]
    assert orders[0] != orders[1]
    assert (changed.stay, changed.of) == (24, 24)
    assert changed.overlap == pytest.approx(rank_biased_overlap(*orders))
    assert 0 < changed.overlap < 1
