"""Why an image is found or not: every state that an image can be in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Filters, Query, Term, errors
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder


def test_found_with_its_rank_over_all_answers(engine: Engine, images: Path) -> None:
    engine.index(images)
    whole = engine.search(Query((Term(text="red"), Term(text="blue", weight=-0.5)), k=99))
    for place, hit in enumerate(whole, 1):
        assert hit.path is not None
        found = engine.why(hit.path, Query((Term(text="red"), Term(text="blue", weight=-0.5)), k=1, offset=4))
        assert (found.state, found.answers, found.id, found.path) == ("found", 10, hit.id, hit.path)
        assert found.hit == hit
        assert found.hit.rank == place
    assert engine.why(whole[2].id, "red").state == "found"


def test_filtered_by_each_by_itself_or_only_together(engine: Engine, images: Path) -> None:
    engine.index(images)
    red = images / "more" / "red one.jpg"
    query = Query((Term(text="red"),), filters=Filters(format=("png",), min_width=10, after=datetime(2020, 1, 1)))
    assert engine.why(red, query).filtered_by == ("after", "format")
    copy = images / "green copy.png"
    copy.write_bytes((images / "green.png").read_bytes())
    engine.index(images)
    # No one file satisfies both, though each is satisfied by some file.
    query = Query((Term(text="red"),), filters=Filters(where="name = 'green.png' and name = 'green copy.png'"))
    assert engine.why(copy, query).filtered_by == ("where",)
    inside = Filters(inside=(images / "more",), where="name = 'blue.png'")
    (images / "more" / "sky.png").write_bytes((images / "blue.png").read_bytes())
    engine.index(images)
    assert engine.why(images / "blue.png", Query((Term(text="red"),), filters=inside)).filtered_by == (
        "inside",
        "where",
    )


def test_failed_missing_unknown(engine: Engine, images: Path, tmp_path: Path) -> None:
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xffbad")
    engine.index(images)
    found = engine.why(images / "bad.jpg", "red")
    assert (found.state, found.id) == ("failed", None)
    assert found.reason == engine.status().failed[0].error
    known = engine.why(images / "blue.png", "red").id
    assert known is not None
    (images / "blue.png").unlink()
    engine.index(images)
    assert engine.why(images / "blue.png", "red").state == "missing"
    assert engine.why(known, "red").state == "missing"
    paint(images / "new.png", "green", 8)
    assert "no run has seen it yet" in (engine.why(images / "new.png", "red").reason or "")
    paint(tmp_path / "else" / "x.png", "green", 9)
    assert "does not belong to the collection" in (engine.why(tmp_path / "else" / "x.png", "red").reason or "")
    assert "no such file" in (engine.why(images / "none.png", "red").reason or "")
    with pytest.raises(errors.UsageError, match="no image #999"):
        engine.why(999, "red")


def test_folded_no_match_and_not_encoded(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = np.clip(np.array(COLOURS["red"]) + rng.normal(0, 40, (40, 40, 3)), 0, 255)
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        first = engine.add("one", pixels.astype(np.uint8), {"caption": "a sunset"})
        second = engine.add("two", np.clip(pixels + 6, 0, 255).astype(np.uint8))
        states = {image: engine.why(image, Query((Term(text="red"),), unique=True)) for image in (first, second)}
        assert sorted(one.state for one in states.values()) == ["folded", "found"]
        head = next(image for image, one in states.items() if one.state == "found")
        assert all(one.hit is not None and one.hit.id == head for one in states.values())
        assert engine.why(second, Query((Term(text="sunset"),), match="keywords")).state == "no match"
        assert engine.why(second, Query((Term(text="red"),), find="captions")).state == "no match"
        engine.add_vectors(["three"], np.ones((1, 4)), space="other")
        other = max(states) + 1
        assert engine.why(other, "red").state == "not encoded"


def test_a_collection_without_vectors(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
        assert engine.why(tmp_path / "x.png", "red").state == "unknown"
