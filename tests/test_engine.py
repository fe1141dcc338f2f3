"""The engine as an application uses it: by key, by vector, with its status."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
    assert (len(held["images"]), len(held["vectors"])) == (1, 3)  # its own, its caption's, both together
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


def png(colour: str, **texts: str) -> bytes:
    """The bytes of a picture that says about itself what `texts` say."""
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text)
    file = io.BytesIO()
    Image.fromarray(solid(colour)).save(file, "png", pnginfo=chunks)
    return file.getvalue()


def captions(engine: Engine) -> list[tuple[str, str]]:
    return [row[1:] for row in state(engine.folder)["captions"]]


def test_pictures_without_a_file_are_what_is_seen(engine: Engine) -> None:
    def palette(colour: str) -> Image.Image:
        picture = Image.new("P", (20, 20), 0)
        picture.putpalette([*COLOURS[colour], *[0] * 765])
        return picture

    red = engine.add("red", palette("red"))
    assert engine.add("blue", palette("blue")) != red
    assert engine.search("blue", k=1).hits[0].key == "blue"
    assert engine.add("red again", Image.fromarray(solid("red"))) == red
    assert engine.add("red as numbers", solid("red")) == red
    assert engine.add("red, other shape", np.full((10, 40, 3), COLOURS["red"], np.uint8)) != red

    four = np.full((8, 8, 4), (200, 10, 10, 255), np.uint8)
    assert engine.add("rgba", Image.fromarray(four)) != engine.add(
        "cmyk", Image.frombytes("CMYK", (8, 8), four.tobytes())
    )

    upright = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 16, 3), np.uint8))
    lying = upright.copy()
    lying.getexif()[0x112] = 6
    first, second = engine.add("upright", upright), engine.add("lying", lying)
    assert first != second
    assert engine.add("turned", upright.transpose(Image.Transpose.ROTATE_270)) == second
    sizes = sorted(row[1:3] for row in state(engine.folder)["images"])
    assert sizes == [(8, 8), (8, 8), (8, 16), (16, 8), (20, 20), (20, 20), (40, 10)]


def test_limits_hold_for_what_is_added(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder(), limits=Limits(max_megapixels=0.0003)) as engine:
        for content in (Image.new("RGB", (20, 20)), solid("red"), png("red")):
            with pytest.raises(errors.UsageError, match=r"0\.0 megapixels; the limit is 0\.0003"):
                engine.add("a", content)
        engine.add("a", solid("red", side=17))


def test_captions_belong_to_their_image_and_add_up(engine: Engine) -> None:
    data = png("red")
    engine.add("a", data, {"caption": "one"})
    engine.add("b", data)
    assert captions(engine) == [("given", "one")]
    engine.add("b", data, {"caption": "more"})  # it has this key by now
    assert captions(engine) == [("given", "more")]
    engine.add("c", data, {"caption": ["two", "three"]})
    assert captions(engine) == [("given", "more"), ("given", "three"), ("given", "two")]
    engine.add("c", data, {"caption": []})
    assert captions(engine) == []
    assert engine.verify().sound


def test_captions_stay_with_a_key_until_others_are_given(engine: Engine) -> None:
    engine.add("a", png("red"), {"caption": "mine"})
    engine.add("a", png("blue"))
    assert captions(engine) == [("given", "mine")]
    engine.add("other", png("blue"))
    engine.add("a", png("green"), {"caption": "new"})
    held = state(engine.folder)
    assert sorted(row[1:] for row in held["captions"]) == [
        ("given", "mine"),
        ("given", "new"),
    ]  # `other` has the old one
    assert len(held["images"]) == 2
    assert engine.verify().sound


@pytest.mark.parametrize("key_first", [True, False])
def test_what_a_picture_says_itself_is_there_whoever_came_first(
    engine: Engine, tmp_path: Path, key_first: bool
) -> None:
    data = png("red", Description="the old barn")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "barn.png").write_bytes(data)
    steps: list[Callable[[], object]] = [lambda: engine.add("a", data), lambda: engine.index(tmp_path / "images")]
    for step in steps if key_first else reversed(steps):
        step()
        assert captions(engine) == [("embedded", "the old barn")]
    assert engine.search("the old barn", find="captions", k=1).hits[0].score > 0.999


def test_what_is_given_outranks_what_is_stored(engine: Engine) -> None:
    engine.add("a", png("red"), {"camera": "A", "lens": "50 mm"})
    engine.add("b", png("red"), {"camera": "B", "lens": None, "latitude": np.float32(0.5)})
    assert state(engine.folder)["images"][0][4:9] == (None, "B", "50 mm", 0.5, None)
    engine.add("b", png("red"), {"taken_at": datetime(2020, 1, 2, 3, tzinfo=UTC)})
    assert state(engine.folder)["images"][0][4:6] == ("2020-01-02 03:00:00.000000", "B")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"taken_at": "2020-01-01"}, "must be a datetime, not str"),
        ({"taken_at": date(2020, 1, 1)}, "must be a datetime, not date"),
        ({"latitude": "north"}, "degrees from -90 to 90, not 'north'"),
        ({"latitude": float("nan")}, "degrees from -90 to 90"),
        ({"latitude": 90.5}, "degrees from -90 to 90"),
        ({"longitude": -180.5}, "degrees from -180 to 180"),
        ({"camera": 5}, "`camera` must be a text, not int"),
        ({"lens": " "}, "`lens` must not be empty"),
        ({"lens": "a \ud800"}, "half a character"),
        ({"caption": "a \ud800"}, "half a character"),
        ({"caption": b"abc"}, "text or a sequence of texts"),
        ({"caption": [5]}, "must be a text, not int"),
        ("a caption", "by name"),
    ],
)
def test_metadata_that_are_not_what_they_should_be(engine: Engine, metadata: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message) as caught:
        engine.add("a", solid("red"), metadata)
    assert "\n" not in str(caught.value)


def test_contents_that_are_no_picture(engine: Engine, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    contents: tuple[tuple[Any, str], ...] = (
        (Image.open(io.BytesIO(file.getvalue()[:-1500])), "Cannot use the picture: the PNG is truncated"),
        (tmp_path / "a.png", "not PosixPath; read the file first"),
        ("a.png", "not str; read the file first"),
        (None, "not NoneType"),
        (noise.astype(float), "must be uint8"),
        (np.zeros(3, np.uint8), "must be uint8"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    )
    for content, message in contents:
        with pytest.raises(errors.UsageError, match=message) as caught:
            engine.add("a", content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "message"), [(5, "not int"), (b"a", "not bytes"), ("\ud800", "half a character")])
def test_keys_that_cannot_be(engine: Engine, key: Any, message: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: engine.add(key, solid("red")),
        lambda: engine.add_vectors([key], np.ones((1, 3)), space="own"),
        lambda: engine.remove([key]),
    ]
    for call in calls:
        with pytest.raises(errors.UsageError, match=message):
            call()


def test_keys_may_be_any_bytes_that_a_file_name_may_be(engine: Engine) -> None:
    engine.add("caf\udce9", solid("red"))
    assert engine.search("red").hits[0].key == "caf\udce9"
    assert engine.remove("caf\udce9") == 1


class Picky(ToyEncoder):
    """Cannot use flat pictures; gives no numbers for narrow ones."""

    def prepare(self, picture: Image.Image) -> Any:
        if picture.height == 1:
            raise ValueError("too flat")
        return super().prepare(picture) * (np.nan if picture.width == 1 else 1)


def test_a_picture_that_the_encoder_cannot_use(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=Picky()) as engine:
        for size, message in (((9, 1), "toy cannot use the picture: too flat"), ((1, 9), "not finite")):
            with pytest.raises(errors.UsageError, match=message):
                engine.add("a", Image.new("RGB", size, "white"))
        assert engine.status().images == 0


def test_vectors_of_any_length_are_directions(engine: Engine) -> None:
    keys, lengths = ["huge", "tiny", "least", "plain"], [1e37, 1e-37, 1e-44, 1]
    engine.add_vectors(keys, np.array([[3, 4]] * 4) * np.array(lengths)[:, None].astype(np.float32), space="own")
    engine.add_vectors(["wide", "narrow"], np.array([[3e300, 4e300], [3e-300, 4e-300]]), space="own")
    engine.add_vectors("whole", [[3, 4]], space="own")
    with Engine.open(engine.folder, model="own") as own:
        scores = {hit.key: hit.score for hit in own.search(Term(vector=np.array([3, 4])))}
    # 1e-44 is 7 times the least number that float32 has: rounding to it turns the vector a little.
    assert scores.pop("least") == pytest.approx(1, abs=1e-3)
    assert scores == {key: pytest.approx(1, abs=1e-6) for key in ("huge", "tiny", "plain", "wide", "narrow", "whole")}
    assert engine.verify().sound


@pytest.mark.parametrize(
    ("vectors", "message"),
    [([[1, 2], [3]], "rows of one length"), ([["x"], ["y"]], "numbers"), ([[1], [1j]], "numbers")],
)
def test_vectors_that_are_no_numbers(engine: Engine, vectors: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        engine.add_vectors(["a", "b"], vectors, space="own")
    for space in ("", 5, "\ud800"):
        with pytest.raises(errors.UsageError, match="name of a space"):
            engine.add_vectors(["a"], np.ones((1, 3)), space=space)  # type: ignore[arg-type]


def test_own_vectors_stay_when_a_key_gets_its_picture(engine: Engine, toy: ToyEncoder) -> None:
    engine.add_vectors(["x", "y"], np.array([[1, 0], [0, 1]]), space="own")
    engine.add_vectors(["x"], toy.encode_texts(["green"]))
    engine.index()
    engine.add("x", solid("red"))
    assert engine.search("red", k=1).hits[0].score > 0.99  # of the picture, no longer the vector that was given
    with Engine.open(engine.folder, model="own") as own:
        hits = own.search(Term(vector=np.array([1, 0]))).hits
        assert [(hit.key, hit.score) for hit in hits] == [("x", 1.0), ("y", 0.0)]
        engine.add("x", solid("blue"))  # another picture: its own vector was of the first
        assert [hit.key for hit in own.search(Term(vector=np.array([1, 0])))] == ["y"]
    assert engine.verify().sound


def test_an_image_has_one_vector_whatever_the_number_of_its_keys(engine: Engine) -> None:
    for key in ("a", "b"):
        engine.add(key, solid("red"))
    with pytest.raises(errors.UsageError, match="'a' and 'b' are of one image"):
        engine.add_vectors(["new", "a", "b"], np.array([[1, 0], [1, 0], [0, 1]]), space="own")
    assert [one.encoder for one in engine.status().spaces] == ["toy"]  # nothing was kept
    assert engine.add_vectors(["a", "b"], np.array([[0, 1], [0, 2]]), space="own") == 2
    engine.add_vectors(["b"], np.array([[1, 0]]), space="own")
    with Engine.open(engine.folder, model="own") as own:
        assert [(hit.key, hit.score) for hit in own.search(Term(vector=np.array([1, 0])))] == [("a", 1.0)]


def test_a_single_pattern_or_table_may_stand_alone(engine: Engine, images: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,caption\nred.png,a wall\n")
    report = engine.index(str(images), exclude="*.png", captions=str(tmp_path / "table.csv"))
    assert (report.new, report.captions) == (2, 0)
    assert engine.index(images, captions=tmp_path / "table.csv").captions == 1


@pytest.mark.parametrize(("query", "k"), [(5, 1), (None, 1), ("red", "5")])
def test_queries_of_no_kind(engine: Engine, query: Any, k: Any) -> None:
    with pytest.raises(errors.UsageError):
        engine.search(query, k=k)


def test_a_folder_does_not_hide_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lite", "own", "mine"):
        (tmp_path / name).mkdir()
    for name in ("lite", "mine"):
        (tmp_path / name / "encoder.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for space in ("lite", str(tmp_path / "mine")):
        with Engine.open(tmp_path / "c", model=ToyEncoder(space)) as engine:
            engine.add("a", solid("red"))
    with Engine.open(tmp_path / "c") as engine:
        engine.add_vectors(["a"], np.ones((1, 13)), space="own")
    for model, space in (("lite", "lite"), ("own", "own"), ("mine", str(tmp_path / "mine"))):
        with Engine.open(tmp_path / "c", model=model) as engine:
            assert engine.search(Term(vector=np.ones(13))).space == space


def test_pictures_are_encoded_by_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(name: str, **_: str) -> ToyEncoder:
        asked.append(name)
        return ToyEncoder(name)

    monkeypatch.setattr("mmsearch.engine.shared_encoder", load)
    with Engine.open(tmp_path / "c") as engine:
        engine.add_vectors(["a"], np.ones((1, 13)), space="own")  # the first, and so the current one
        engine.add("b", solid("red"))
    with Engine.open(tmp_path / "c", model=ToyEncoder("newer")) as engine:
        engine.add("b", solid("red"))
    with Engine.open(tmp_path / "c") as engine:
        engine.add("b", solid("red"))
    assert asked == ["lite", "newer"]


def test_an_empty_collection_answers_for_the_model_that_was_asked(tmp_path: Path) -> None:
    for model, space in ((None, "lite"), ("own", "own"), (ToyEncoder(), "toy")):
        with Engine.open(tmp_path / "c", model=model) as engine:
            result = engine.search(Term(vector=np.ones(13)))
            assert (result.space, result.hits) == (space, ())


def everything(engine: Engine, images: Path) -> list[Callable[[], object]]:
    """Whatever may be asked of an engine."""
    return [
        lambda: engine.index(images),
        lambda: engine.index(),
        lambda: engine.add("a", solid("red")),
        lambda: engine.add_vectors(["a"], np.ones((1, 3)), space="own"),
        lambda: engine.remove(["a"]),
        lambda: engine.relocate(images, images),
        lambda: engine.remove_root(images),
        lambda: engine.search("red"),
        engine.status,
        engine.verify,
    ]


def test_a_closed_collection_says_so(engine: Engine, images: Path) -> None:
    engine.index(images)
    engine.search("red")
    engine.close()
    engine.close()
    for call in everything(engine, images):
        with pytest.raises(errors.CollectionError, match=r"This collection is closed \(.*collection\); open it again"):
            call()
    with Engine.open(engine.folder, model=ToyEncoder()) as again:
        assert len(again.search("red")) == 10


def test_a_collection_that_is_gone_says_so(engine: Engine, images: Path) -> None:
    engine.index(images)
    engine.search("red")
    shutil.rmtree(engine.folder)
    for call in everything(engine, images):
        with pytest.raises(errors.CollectionNotFoundError, match="not there any more; mount its disk") as caught:
            call()
        assert "\n" not in str(caught.value)
    engine.close()
    assert not engine.folder.exists()


def test_an_open_engine_follows_an_index_that_was_lost(engine: Engine, images: Path) -> None:
    engine.index(images)
    expected = engine.search("red", k=99).hits
    shutil.rmtree(engine.folder / "index")
    with Engine.open(engine.folder, model=ToyEncoder()) as other:
        assert "scanned" in str(other.search("red").notice)
        assert other.search("red", k=99).hits == expected
        engine.index()
        assert other.search("red", k=99).notice is None
        built = [path.name for path in (engine.folder / "index" / "1").iterdir()]
        assert built == ["images-10-1"]
        assert other.search("red", k=99).hits == expected
