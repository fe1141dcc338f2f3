"""The engine as an application uses it: by key, by vector, with its status."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Limits, Term, errors
from tests.conftest import paint
from tests.state import state
from tests.toy import COLOURS, ToyEncoder


def solid(colour: str, side: int = 20) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.full((side, side, 3), COLOURS[colour], np.uint8)


def test_what_is_added_by_key_is_found_by_key(engine: Engine, images: Path) -> None:
    engine.add("a", solid("red"))
    engine.add("b", Image.fromarray(solid("green")))
    engine.add("c", (images / "blue.png").read_bytes(), {"caption": ["the sea", "waves"], "camera": "Acme"})
    for text, key in (("red", "a"), ("green", "b"), ("blue", "c")):
        best = engine.search(text, k=1).hits[0]
        assert (best.key, best.path, best.paths) == (key, None, ())
    assert engine.search("the sea", find="captions", k=1).hits[0].key == "c"
    assert {row[5] for row in state(engine.folder)["images"]} == {None, "Acme"}
    assert engine.verify().sound


def test_a_key_holds_one_picture(engine: Engine) -> None:
    engine.add("a", solid("red"), {"caption": "one"})
    engine.add("a", solid("blue"), {"caption": "two"})
    held = state(engine.folder)
    assert (len(held["images"]), len(held["vectors"])) == (1, 2)
    assert [row[2] for row in held["captions"]] == ["two"]
    assert engine.search("blue", k=5).hits[0].score > 0.99


def test_one_content_under_a_key_and_in_a_folder(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    engine.index(images)
    encoded = toy.pictures
    engine.add("mine", (images / "red.png").read_bytes())
    hit = engine.search("red", k=1).hits[0]
    assert next(one for one in engine.search("red", k=9) if one.key).path == images / "red.png"
    assert engine.status().images == 10
    assert engine.remove(["mine", "nobody"]) == 1
    assert engine.status().images == 10
    engine.index(images)
    assert toy.pictures == encoded + 1
    assert hit.score == engine.search("red", k=1).hits[0].score


def test_metadata_is_checked(engine: Engine) -> None:
    taken = datetime(2020, 5, 17, 12, 30)
    engine.add("a", solid("red"), {"taken_at": taken, "latitude": 1.5, "longitude": -2.0, "lens": "50 mm"})
    row = state(engine.folder)["images"][0]
    assert row[4:9] == ("2020-05-17 12:30:00.000000", None, "50 mm", 1.5, -2.0)
    for metadata, message in (
        ({"captoin": "x"}, "valid are: caption"),
        ({"caption": 5}, "text"),
        ({"caption": [" "]}, "empty"),
    ):
        with pytest.raises(errors.UsageError, match=message):
            engine.add("b", solid("red"), metadata)
    with pytest.raises(errors.UsageError, match="key"):
        engine.add("", solid("red"))
    with pytest.raises(errors.UsageError, match="Cannot use the picture"):
        engine.add("b", b"nothing")
    assert engine.status().images == 1


def test_vectors_of_an_applications_own(engine: Engine) -> None:
    engine.add("known", solid("red"))
    assert engine.add_vectors(["known", "new"], np.array([[3, 4], [0, 2]], np.float32), space="own") == 2
    with Engine.open(engine.folder, model="own") as own:
        hits = own.search(Term(vector=np.array([0, 1]))).hits
        assert [(hit.key, round(hit.score, 3)) for hit in hits] == [("new", 1.0), ("known", 0.8)]
        with pytest.raises(errors.ModelError, match="given by an application"):
            own.search("red")
        own.add_vectors(["known"], np.array([[0, 1]], np.float32), space="own")
        assert [round(hit.score, 3) for hit in own.search(Term(vector=np.array([0, 1])))] == [1.0, 1.0]
    assert [(space.encoder, space.images, space.current) for space in engine.status().spaces] == [
        ("toy", 1, True),
        ("own", 2, False),
    ]
    assert engine.verify().sound


def test_vectors_of_the_engines_encoder(engine: Engine, toy: ToyEncoder) -> None:
    vectors = toy.encode_texts(["red", "blue"])
    engine.add_vectors(["r", "b"], vectors)
    assert [hit.key for hit in engine.search("blue")] == ["b", "r"]


@pytest.mark.parametrize(
    ("keys", "vectors", "message"),
    [
        (["a"], np.ones((2, 3)), "1 keys need"),
        (["a"], np.ones(3), "1 keys need"),
        (["a"], np.zeros((1, 3)), "not zero"),
        (["a"], np.full((1, 3), np.nan), "finite"),
        (["a", "a"], np.ones((2, 3)), "once"),
    ],
)
def test_vectors_that_do_not_fit(engine: Engine, keys: list[str], vectors: np.ndarray, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        engine.add_vectors(keys, vectors, space="own")


def test_vectors_of_another_dimension(engine: Engine) -> None:
    engine.add_vectors(["a"], np.ones((1, 3)), space="own")
    with pytest.raises(errors.UsageError, match="have 3 numbers, not 4"):
        engine.add_vectors(["b"], np.ones((1, 4)), space="own")


def test_status_tells_what_there_is(engine: Engine, images: Path) -> None:
    (images / "bad.jpg").write_bytes(b"bad")
    (images / "red.txt").write_text("a red wall")
    engine.index(images)
    (images / "blue.png").unlink()
    engine.index(images)
    status = engine.status()
    assert (status.images, status.captions, status.missing) == (9, 1, 1)
    assert [(root.path, root.files, root.present) for root in status.roots] == [(images, 11, True)]
    assert [failed.path for failed in status.failed] == [images / "bad.jpg"]
    space = status.spaces[0]
    assert (space.encoder, space.dimension, space.images, space.captions) == ("toy", 13, 10, 1)
    assert (space.index.kind, space.index.exact, space.current, space.ready) == ("flat", True, True, True)


def test_limits_hold_for_queries_too(tmp_path: Path, images: Path) -> None:
    paint(images / "large.png", "red", size=(300, 300))
    with Engine.open(tmp_path / "c", model=ToyEncoder(), limits=Limits(max_megapixels=0.05)) as engine:
        engine.index(images)
        with pytest.raises(errors.UsageError, match=r"large\.png"):
            engine.search(Term(picture=images / "large.png"))


def test_named_collections_lie_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Engine.open("holidays", model=ToyEncoder()) as engine:
        assert engine.folder.parts[-3:] == ("mmsearch", "collections", "holidays")
    monkeypatch.setenv("MMSEARCH_COLLECTION", str(tmp_path / "by environment"))
    with Engine.open(model=ToyEncoder()) as engine:
        assert engine.folder == tmp_path / "by environment"
    monkeypatch.chdir(tmp_path)
    with Engine.open("./here", model=ToyEncoder()) as engine:
        assert engine.folder == tmp_path / "here"
