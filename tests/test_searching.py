"""The search: exact, complete, in one order; compared with brute force on whatever a collection may hold."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mmsearch import Engine, Limits, Query, Term, errors
from mmsearch.composing import compose
from tests.conftest import paint
from tests.toy import ToyEncoder

DIMENSION = 5


def query_vector(terms: tuple[Term, ...], encoder: ToyEncoder | None, dimension: int) -> NDArray[np.float32]:
    return compose(
        Query(terms), dimension, encoder=encoder, stored={}, files=Path, calibration=None, limits=Limits()
    ).vector


def brute_force(vectors: dict[str, NDArray[np.float32]], query: NDArray[np.float32]) -> dict[str, float]:
    """key -> cosine, of the vectors as float16 keeps them."""
    unit = query_vector((Term(vector=query),), None, DIMENSION).astype(np.float64)
    scores = {}
    for key, vector in vectors.items():
        row = (vector / np.linalg.norm(vector)).astype(np.float16).astype(np.float64)
        scores[key] = float(np.float32(np.dot(row, unit) / np.linalg.norm(row)))
    return scores


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, object]]:
    """What happens to a collection, in order: vectors added or replaced, keys removed, index runs."""
    few = st.integers(0, 30)
    steps = st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.tuples(few, st.integers(0, 12)), min_size=1, max_size=25, unique_by=lambda x: x[0]),
        ),
        st.tuples(st.just("remove"), st.lists(few, min_size=1, max_size=12)),
        st.tuples(st.just("index"), st.none()),
    )
    return draw(st.lists(steps, min_size=1, max_size=7))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), query=st.integers(0, 12), k=st.integers(1, 40))
def test_like_brute_force_whatever_happened(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, object]], query: int, k: int
) -> None:
    # Thirteen directions for up to 31 keys: many ties, and some nearly so.
    directions = np.random.default_rng(3).normal(size=(13, DIMENSION)).astype(np.float32)
    directions[7] = directions[6] + 2e-4
    directions[8] = directions[6] * 3
    expected: dict[str, NDArray[np.float32]] = {}
    with Engine.open(tmp_path_factory.mktemp("c")) as engine:
        for what, arguments in history:
            if what == "add":
                assert isinstance(arguments, list)
                keys = [f"key {key}" for key, _ in arguments]
                vectors = directions[[direction for _, direction in arguments]]
                engine.add_vectors(keys, vectors, space="own")
                expected.update(zip(keys, vectors, strict=True))
            elif what == "remove":
                assert isinstance(arguments, list)
                keys = [f"key {key}" for key in arguments]
                assert engine.remove(keys) == len(set(keys) & set(expected))
                for key in keys:
                    expected.pop(key, None)
            elif expected:
                engine.index()
            if expected:
                hits = engine.search(Term(vector=directions[query]), k=k).hits
                scores = brute_force(expected, directions[query])
                assert len(hits) == min(k, len(expected))
                assert [hit.score for hit in hits] == sorted(scores.values(), reverse=True)[:k]
                assert all(scores[hit.key or ""] == hit.score for hit in hits)
                order = [(-hit.score, hit.sha256) for hit in hits]
                assert order == sorted(order)
                first_left_out = [key for key in expected if key not in {hit.key for hit in hits}]
                assert all((-scores[key]) >= order[-1][0] for key in first_left_out)
        if expected:
            assert engine.verify().sound


def test_every_picture_finds_itself_first(engine: Engine, images: Path) -> None:
    engine.index(images)
    for path in sorted(images.rglob("*.*")):
        best = engine.search(Term(picture=path), k=1).hits[0]
        assert best.path == path
        assert best.score > 0.9999


def test_hits_are_the_same_through_index_tail_and_both(tmp_path: Path, images: Path) -> None:
    answers = []
    for name, runs in (("index", [images]), ("both", [images / "more", images])):
        with Engine.open(tmp_path / name, model=ToyEncoder()) as engine:
            for run in runs:
                engine.index(run)
            answers.append([(hit.sha256, hit.score) for hit in engine.search("orange", k=99)])
    with Engine.open(tmp_path / "tail", model=ToyEncoder()) as engine:
        for path in sorted(images.rglob("*.*")):
            engine.add(path.name, path.read_bytes())
        assert engine.status().spaces[0].index.kind == "scan"
        answers.append([(hit.sha256, hit.score) for hit in engine.search("orange", k=99)])
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 10


def test_threads_get_the_answers_of_one(engine: Engine, images: Path) -> None:
    engine.index(images)
    texts = ["red", "blue", "a green thing", "purple orange"] * 10
    alone = [engine.search(text, k=5) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: engine.search(text, k=5), texts)) == alone


def test_an_open_engine_sees_what_another_adds(engine: Engine, images: Path) -> None:
    engine.index(images)
    assert len(engine.search("red", k=99)) == 10
    with Engine.open(engine.folder, model=ToyEncoder()) as other:
        other.add("new", np.full((20, 20, 3), (220, 30, 30), np.uint8))
        assert len(engine.search("red", k=99)) == 11
        for number in range(5):
            paint(images / f"new {number}.png", "red", 100 + number)
        other.index(images)
        assert len(engine.search("red", k=99)) == 16
        other.remove(["new"])
        assert len(engine.search("red", k=99)) == 15


def test_terms_of_both_kinds_weigh_the_same() -> None:
    toy = ToyEncoder()
    red = np.full((16, 16, 3), (220, 30, 30), np.uint8)
    vector = query_vector((Term(text="blue"), Term(picture=red)), toy, 13)
    text, picture = toy.encode_texts(["blue"])[0], toy.encode_images([red.astype(np.float32)])[0]
    expected = (text + picture) / np.linalg.norm(text + picture)
    assert np.allclose(vector, expected, atol=1e-6)
    many = query_vector((Term(text="blue"), Term(picture=red), Term(picture=red)), toy, 13)
    assert np.allclose(many, expected, atol=1e-6)  # another picture does not drown the text


def test_queries_that_cannot_be(engine: Engine, images: Path, tmp_path: Path) -> None:
    engine.index(images)
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    bad: list[tuple[object, str]] = [
        (lambda: engine.search("  "), "empty"),
        (lambda: engine.search("red", k=0), "at least 1"),
        (lambda: engine.search("red", find="videos"), "valid are"),  # type: ignore[arg-type]
        (lambda: engine.search(Query(())), "at least one"),
        (lambda: Term(), "this one has 0"),
        (lambda: Term(text="a", picture="b"), "this one has 2"),
        (lambda: engine.search(Term(picture=tmp_path / "bad.jpg")), "bad.jpg: not a picture"),
        (lambda: engine.search(Term(picture=tmp_path / "none.jpg")), "not there"),
        (lambda: engine.search(Term(picture=np.zeros((4, 4)))), "uint8"),  # type: ignore[arg-type]
        (lambda: engine.search(Term(vector=np.zeros(13))), "zero"),
        (lambda: engine.search(Term(vector=np.ones(4))), "13 finite"),
        (lambda: engine.search(Term(vector=np.full(13, np.nan))), "13 finite"),
    ]
    for call, message in bad:
        assert callable(call)
        with pytest.raises(errors.UsageError, match=message):
            call()


def test_pictures_are_taken_in_any_form(engine: Engine, images: Path) -> None:
    engine.index(images)
    path = images / "green.png"
    picture = Image.open(path)
    forms = [str(path), path, path.read_bytes(), picture, np.asarray(picture)]
    results = [[(hit.path, hit.score) for hit in engine.search(Term(picture=form), k=3)] for form in forms]
    assert all(result == results[0] for result in results)
    assert results[0][0][0] == path


def test_an_empty_collection_has_no_hits(engine: Engine) -> None:
    assert engine.search("red").hits == ()
    engine.add("x", np.full((9, 9, 3), 9, np.uint8))
    assert engine.search("red", find="captions").hits == ()


def test_paths_that_are_there_come_first(engine: Engine, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "another disk"
    other.mkdir()
    (other / "copy.png").write_bytes((images / "red.png").read_bytes())
    engine.index([images, other])
    assert engine.search("red", k=1).hits[0].path is not None
    before = {hit.sha256: hit.paths for hit in engine.search("red", k=99)}
    images.rename(tmp_path / "away")
    hit = next(hit for hit in engine.search("red", k=99) if len(hit.paths) == 2)
    assert hit.path == other / "copy.png"
    assert sorted(hit.paths) == sorted(before[hit.sha256])


def test_ranks_count_from_one_and_hits_are_plain_data(engine: Engine, images: Path) -> None:
    engine.index(images)
    result = engine.search("red", k=3)
    assert [hit.rank for hit in result] == [1, 2, 3]
    assert (result.space, result.exact, len(result)) == ("toy", True, 3)
    first = dataclasses.asdict(result.hits[0])
    assert first["path"] == Path(os.fspath(result.hits[0].paths[0]))
