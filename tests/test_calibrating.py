"""A collection calibrates itself where its encoder does not, once, and alike whatever happened on the way; labelled
pairs from captions, and what is fitted to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import Engine
from mmsearch.calibrating import background_of, neutral_queries
from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.relevance import calibration_for
from mmsearch.training.mentions import OPEN, RIGHT, WRONG, Asked, Mentions
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder


def stored(collection: Path) -> str | None:
    catalog = Catalog(collection, create=False)
    try:
        with catalog.reading() as connection:
            return read.calibration(connection, read.spaces(connection)[-1].id)
    finally:
        catalog.close()


def many(folder: Path, count: int, first: int = 0) -> Path:
    for number in range(first, first + count):
        paint(folder / f"{number:03}.png", list(COLOURS)[number % len(COLOURS)], number)
    return folder


def test_the_background_by_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    images, bank = (rng.normal(size=(n, 6)).astype(np.float32) for n in (50, 20))
    found = background_of(images, bank)
    assert found is not None
    np.testing.assert_allclose(found.images_mean, images.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.captions_mean, bank.mean(0), rtol=1e-5)
    assert found.parts == (6,)
    for way, asking, answering in (
        ("t2i", bank, images), ("i2i", images, images), ("i2t", images, bank), ("t2t", bank, bank),
    ):  # fmt: skip
        wanted = np.mean([np.std([float(q @ x) for x in answering]) for q in asking])
        assert found.spreads[way] == pytest.approx(wanted, rel=1e-4)


def test_pictures_that_are_all_the_same_tell_nothing() -> None:
    same = np.tile(np.array([[1, 0]], np.float32), (60, 1))
    assert background_of(same, np.eye(2, dtype=np.float32)) is None
    assert background_of(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32)) is not None


def test_a_collection_calibrates_a_space_that_brings_nothing(tmp_path: Path) -> None:
    toy = ToyEncoder()
    with Engine.open(tmp_path / "c", model=toy) as engine:
        engine.index(many(tmp_path / "images", 80))
        first = stored(tmp_path / "c")
        assert first is not None
        calibration = calibration_for(toy, json.loads(first))
        assert calibration is not None
        assert calibration.kind == "collection"
        texts = toy.texts
        paint(tmp_path / "images" / "more.png", "red", 999)
        engine.index(tmp_path / "images")
        assert stored(tmp_path / "c") == first  # one picture in eighty changes nothing
        assert toy.texts == texts
        many(tmp_path / "images", 30, first=200)
        engine.index(tmp_path / "images")
        assert json.loads(stored(tmp_path / "c") or "")["images"] == 111
        result = engine.search("red", k=3)
    assert result.calibration == "collection"
    probabilities = [hit.probability for hit in result]
    assert None not in probabilities
    assert probabilities == sorted(probabilities, reverse=True)


def test_it_hangs_on_nothing_but_the_pictures(tmp_path: Path) -> None:
    """The same pictures in other runs, orders and places give the same numbers."""
    many(tmp_path / "one", 80)
    for number in range(79, -1, -1):
        target = tmp_path / "two" / f"part {number % 3}" / f"{1000 - number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "one" / f"{number:03}.png").read_bytes())
    for name in ("one", "two"):
        with Engine.open(tmp_path / f"collection {name}", model=ToyEncoder()) as engine:
            engine.index(tmp_path / name)
    assert stored(tmp_path / "collection one") == stored(tmp_path / "collection two")


def test_few_pictures_give_no_probabilities(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        engine.index(many(tmp_path / "images", 10))
        result = engine.search("red", k=3)
    assert [hit.probability for hit in result] == [None] * 3
    assert (result.relevant, result.calibration) == (None, None)


def test_an_encoder_with_a_calibration_of_its_own_is_left_alone(tmp_path: Path) -> None:
    class Complete(ToyEncoder):
        calibration = {"format": 1}  # noqa: RUF012

    with Engine.open(tmp_path / "c", model=Complete()) as engine:
        engine.index(many(tmp_path / "images", 60))
    assert stored(tmp_path / "c") is None


def test_the_bank() -> None:
    bank = neutral_queries()
    assert len(bank) == len(set(bank)) > 500


# --- labelled pairs ---------------------------------------------------------------------------------------------

CAPTIONS = (
    ("A black dog runs on the grass .", "A dog on a lawn .", "The dog runs ."),
    ("A man in a red shirt on a bench .", "Someone sits .", "A man in red on a bench ."),
    ("An animal in a field .", "Something runs .", "A field ."),
    ("A girl in a pool .", "A girl swims in the pool .", "A child plays in a pool ."),
)


@pytest.fixture
def mentions() -> Mentions:
    return Mentions(CAPTIONS)


def one(asked: Sequence[Asked], text: str) -> Asked:
    return next(query for query in asked if query.text == text)


def test_words(mentions: Mentions) -> None:
    words = mentions.words()
    dog = one(words, "dog")
    assert dog.labels.tolist() == [RIGHT, WRONG, OPEN, WRONG]  # an animal may be a dog
    assert dog.there.tolist() == [True, False, False, False]
    assert "bench" not in [query.text for query in words]  # two of three captions are not sure enough
    assert one(words, "pool").labels.tolist() == [WRONG, WRONG, WRONG, RIGHT]


def test_sentences_are_right_for_their_own_picture(mentions: Mentions) -> None:
    for query in mentions.sentences(4, seed=1):
        own = next(i for i, texts in enumerate(CAPTIONS) if any(t.strip(" .") == query.text for t in texts))
        assert query.labels[own] == RIGHT


def test_absent_is_what_nothing_comes_near_to(mentions: Mentions) -> None:
    found = mentions.absent(["a whale", "a puppy", "an animal", "a red dog", "a black bench"])
    assert [query.text for query in found] == ["a whale"]


def test_phrases_need_all_words_in_one_caption() -> None:
    texts = ("A black dog in the snow .",) * 3
    mentions = Mentions([texts, ("A dog .", "Something black .", "Snow .")])
    phrases = mentions.phrases(10)
    assert {"black dog", "dog in the snow"} <= {query.text for query in phrases}
    assert one(phrases, "black dog").labels.tolist() == [RIGHT, OPEN]


# --- fitting ----------------------------------------------------------------------------------------------------


def test_a_logistic_is_fitted_as_scikit_learn_does() -> None:
    pytest.importorskip("torch", reason="needs mmsearch[train]")
    pytest.importorskip("onnx", reason="needs mmsearch[train]")
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the independent fit")
    from mmsearch.training.calibrate import fit_plain

    rng = np.random.default_rng(0)
    scores = rng.normal(2, 1, (80, 20))
    labels: NDArray[np.int8] = (rng.random((80, 20)) < 1 / (1 + np.exp(4 - 2 * scores))).astype(np.int8)
    labels[rng.random((80, 20)) < 0.2] = OPEN
    weights = rng.uniform(0.5, 2, 80)
    counted = labels != OPEN
    each = np.repeat(weights[:, None], 20, axis=1)[counted]
    model = linear_model.LogisticRegression(C=np.inf, max_iter=10_000, tol=1e-10)
    model.fit(scores[counted][:, None], labels[counted], sample_weight=each)
    slope, intercept = fit_plain(scores, labels, weights)
    assert (slope, intercept) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=2e-3)


def test_what_is_fitted_tells_presence_and_stays_honest() -> None:
    """Made askings whose truth is known: the line lies where half of the queries are answered."""
    pytest.importorskip("torch", reason="needs mmsearch[train]")
    pytest.importorskip("onnx", reason="needs mmsearch[train]")
    from mmsearch.training.calibrate import Asking, fit_hits

    rng = np.random.default_rng(1)
    askings = []
    for number in range(3000):
        there = number % 10 >= 3
        height = rng.normal(2.0 if there else 0.0)
        scores = np.sort(rng.normal(3, 0.5, 20))[::-1]
        right = there & (rng.random(20) < 0.7)
        features = np.array([1.0, height])
        kind = "word" if there else ("absent" if number % 10 else "gone")
        askings.append(
            Asking(kind, scores, right.astype(np.int8), features, float(np.log(scores[0] - scores[9] + 0.1)))
        )
    presence, best, fall, _ = fit_hits(askings)
    # Two Gaussians of width 1 at 0 and 2, seven to three: log odds are 2 h - 2 + log(7 / 3).
    assert presence[1] == pytest.approx(2, abs=0.2)
    assert presence[0] == pytest.approx(-2 + np.log(7 / 3), abs=0.2)
    assert 0 < best[0] < 1  # seven hits in ten are right: no more than that can honestly be said
    assert np.isfinite(fall).all()
