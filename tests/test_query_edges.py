"""What reaches the query layer from strangers: each is refused in one line that says what and why, or answered."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mmsearch import Engine, Filters, Query, Term, errors
from mmsearch.query import from_json
from tests.conftest import paint

HALF = "caf\udce9"  # what a name that is no UTF-8 becomes; and half a character in earnest:
LONE = "\ud800"

REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("id", lambda: Term(image=2**70)),
    ("id", lambda: Term(image="1")),  # type: ignore[arg-type]
    ("id", lambda: Term(image=-1)),
    ("id", lambda: Query(more=(2**63,))),
    ("id", lambda: Query(less=("x",))),  # type: ignore[arg-type]
    ("good and bad", lambda: Query(more=(1, 2), less=(2,))),
    ("weight", lambda: Term(text="a", weight=1e308)),
    ("weight", lambda: Term(text="a", weight=1e-9)),
    ("weight", lambda: Term(text="a", weight="2")),  # type: ignore[arg-type]
    ("empty", lambda: Term(text=5)),  # type: ignore[arg-type]
    ("four numbers", lambda: Term(image=1, part=(1, 2, 3))),  # type: ignore[arg-type]
    ("four numbers", lambda: Term(image=1, part=(1, 2, 3, "4"))),  # type: ignore[arg-type]
    ("whole number", lambda: Query((Term(text="a"),), k=2.5)),  # type: ignore[arg-type]
    ("whole number", lambda: Query((Term(text="a"),), k="5")),  # type: ignore[arg-type]
    (r"10\^9", lambda: Query((Term(text="a"),), offset=2**63 - 1)),
    ("true or false", lambda: Query((Term(text="a"),), unique="no")),  # type: ignore[arg-type]
    ("other way", lambda: Filters(after=datetime(2024, 1, 1), before=datetime(2023, 1, 1))),
    ("characters", lambda: Filters(camera=("x" * 60_000,))),
    *[
        (".", lambda kept=kept: from_json(kept))
        for kept in (
            {"terms": 5},
            {"terms": [{"text": 5}]},
            {"terms": [{"text": "a", "weight": "b"}]},
            {"terms": [{"image": "x"}]},
            {"terms": [{"picture": 5}]},
            {"terms": [{"picture": "a", "part": 5}]},
            {"terms": [{"picture": "a", "part": [1, 2]}]},
            {"terms": [{"text": "a"}], "more": 5},
            {"terms": [{"text": "a"}], "more": ["x"]},
            {"terms": [{"text": "a"}], "unique": "no"},
            {"terms": [{"text": "a"}], "filters": 5},
            {"terms": [{"text": "a"}], "k": None},
            {"terms": [{"text": "a"}], 5: 1},
        )
    ],
]


@pytest.mark.parametrize(("said", "call"), REFUSED, ids=range(len(REFUSED)))
def test_refused_with_a_reason(said: str, call: Callable[[], Any]) -> None:
    with pytest.raises(errors.UsageError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_odd_texts_are_searched_for_or_refused(engine: Engine, images: Path) -> None:
    engine.index(images)
    for text in (HALF, LONE, "a\0b", "🌅", "'; DROP TABLE image; --", '"', "x" * 100_000, "日本", "%", "NOT AND OR"):
        for match in ("vectors", "hybrid"):
            assert len(engine.search(Query((Term(text=text),), match=match))) == 10  # type: ignore[arg-type]
        try:
            engine.search(Query((Term(text=text),), match="keywords"))
        except errors.UsageError as error:
            assert "no word" in str(error)
    assert len(engine.search(Query(tuple(Term(text=f"word {n}") for n in range(300)), match="hybrid"))) == 10
    for path in ("a\0b", LONE, str(images), "", "/"):
        with pytest.raises(errors.UsageError):
            engine.why(path, "red")
    assert engine.why(images / HALF, "red").state == "unknown"


def test_a_linked_picture_is_a_place_of_its_own(engine: Engine, images: Path, tmp_path: Path) -> None:
    outside = paint(tmp_path / "outside" / "x.png", "red", 9)
    (images / "link.png").symlink_to(outside)
    (tmp_path / "way").symlink_to(images)
    engine.index(images)
    assert engine.why(images / "link.png", "red").state == "found"
    assert engine.why(tmp_path / "way" / "link.png", "red").state == "found"
    assert "does not belong" in (engine.why(outside, "red").reason or "")


def test_why_names_a_tag_or_folder_that_is_not_there(engine: Engine, images: Path, tmp_path: Path) -> None:
    engine.index(images)
    for values in ({"tags": ("nosuch",)}, {"inside": (tmp_path / "none",)}):
        with pytest.raises(errors.UsageError, match=r"nosuch|none"):
            engine.why(images / "red.png", Query((Term(text="red"),), filters=Filters(**values)))  # type: ignore[arg-type]


def test_a_saved_query_that_cannot_be_read_costs_only_itself(engine: Engine, images: Path) -> None:
    engine.index(images)
    engine.save_query("good", "red")
    engine.close()
    with sqlite3.connect(engine.folder / "catalog.sqlite") as connection:
        connection.execute("INSERT INTO saved_query VALUES ('broken', '{')")
        connection.execute("""INSERT INTO saved_query VALUES ('newer', '{"terms": [], "mood": 1}')""")
    connection.close()
    with Engine.open(engine.folder) as again:
        assert list(again.saved_queries()) == ["good"]
        for name in ("broken", "newer"):
            with pytest.raises(errors.UsageError, match=f"saved remove {name}"):
                again.saved_query(name)
            again.forget_query(name)
            with pytest.raises(errors.UsageError, match="there are: good"):
                again.forget_query(name)
        for name in ("", " a", "a\0b", "a\nb", HALF):
            with pytest.raises(errors.UsageError, match="no name"):
                again.save_query(name, "red")


def test_the_name_of_a_root_is_a_word_too(engine: Engine, images: Path, tmp_path: Path) -> None:
    engine.index(images)

    def found(word: str) -> int:
        return len(engine.search(Query((Term(text=word),), match="keywords", k=99)))

    assert (found("images"), found("iceland")) == (10, 0)
    images.rename(tmp_path / "Iceland")
    engine.relocate(images, tmp_path / "Iceland")
    assert (found("images"), found("iceland")) == (0, 10)


def test_only_unwanted_terms_have_no_probability(engine: Engine, images: Path) -> None:
    for number in range(60):
        paint(images / f"{number}.png", ["red", "blue"][number % 2], 100 + number)
    engine.index(images)
    result = engine.search(Query((Term(text="red", weight=-1),)))
    assert (result.relevant, {hit.probability for hit in result}) == (None, {None})
    assert engine.search("red").relevant is not None
