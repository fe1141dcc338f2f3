"""What was asked: the grammar of terms, their written forms, what cannot be asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import Query, Term
from mmsearch.errors import UsageError
from mmsearch.filters import Filters
from mmsearch.query import from_json, image_id, picture_term, text_term, to_json


@pytest.mark.parametrize(
    ("written", "text", "weight"),
    [
        ("a beach", "a beach", 1),
        ("2:sunset", "sunset", 2),
        ("0.5:a dog: asleep", "a dog: asleep", 0.5),
        (".5:x", "x", 0.5),
        ("1e-1:x", "x", 0.1),
        ("=2:30 pm", "2:30 pm", 1),
        ("==", "=", 1),
        ("title: a dog", "title: a dog", 1),
        ("http://a.example", "http://a.example", 1),
        ("10://x", "10://x", 1),
    ],
)
def test_text_terms(written: str, text: str, weight: float) -> None:
    term = text_term(written)
    assert (term.text, term.weight) == (text, weight)
    assert text_term(written, unwanted=True).weight == -weight


@pytest.mark.parametrize("written", ["0:x", "-1:x", "1,5:x", "1.2.3:x", "inf:x", "nan:x", "1e999:x"])
def test_a_weight_that_is_none_is_named(written: str) -> None:
    with pytest.raises(UsageError) as caught:
        text_term(written)
    assert f"'{written.removesuffix(':x')}' is no weight" in str(caught.value)
    assert f"={written} for these very words" in str(caught.value)


@pytest.mark.parametrize("written", ["", "   ", "2:", "2:  ", "="])
def test_empty_texts(written: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        text_term(written)


@pytest.mark.parametrize(
    ("written", "picture", "image", "weight", "part"),
    [
        ("photo.jpg", Path("photo.jpg"), None, 1, None),
        ("0.5:photo.jpg", Path("photo.jpg"), None, 0.5, None),
        ("photo.jpg@10,20,300,200", Path("photo.jpg"), None, 1, (10, 20, 300, 200)),
        ("2:a@b.jpg@0,0,.5,.5", Path("a@b.jpg"), None, 2, (0, 0, 0.5, 0.5)),
        ("a@b.jpg", Path("a@b.jpg"), None, 1, None),
        ("=2:photo.jpg@1,2,3,4", Path("2:photo.jpg@1,2,3,4"), None, 1, None),
        ("=#12", Path("#12"), None, 1, None),
        ("#12", None, 12, 1, None),
        ("3:#12@0,0,9,9", None, 12, 3, (0, 0, 9, 9)),
        ("https://a.example/b.jpg?c=1:2", "https://a.example/b.jpg?c=1:2", None, 1, None),
        ("2:https://a.example/b@1,2,3,4", "https://a.example/b", None, 2, (1, 2, 3, 4)),
    ],
)
def test_picture_terms(
    written: str, picture: object, image: int | None, weight: float, part: tuple[float, ...] | None
) -> None:
    term = picture_term(written)
    assert (term.picture, term.image, term.weight, term.part) == (picture, image, weight, part)
    assert term.is_url == isinstance(picture, str)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("2:", "names no picture"),
        ("#x", "no image"),
        ("#", "no image"),
        ("#-1", "no image"),
        ("a.jpg@1,2,0,4", "part"),
        ("a.jpg@-1,2,3,4", "part"),
        ("a.jpg@1..2,3,4,5", "no part"),
        ("0:a.jpg", "no weight"),
    ],
)
def test_picture_terms_that_are_none(written: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        picture_term(written)


def test_ids_of_images() -> None:
    assert image_id("12") == image_id("#12") == 12
    for written in ("", "#", "1.5", "-1", "٣"):
        with pytest.raises(UsageError, match="no image"):
            image_id(written)


def test_terms_are_shown_as_people_write_them() -> None:
    shown = {
        "a beach": Term(text="a beach"),
        "2:sunset": Term(text="sunset", weight=2),
        "not people": Term(text="people", weight=-1),
        "not 0.5:people": Term(text="people", weight=-0.5),
        "photo.jpg": Term(picture=Path("/x/photo.jpg")),
        "unlike photo.jpg@1,2,3,4": Term(picture="/x/photo.jpg", weight=-1, part=(1, 2, 3, 4)),
        "#7": Term(image=7),
        "picture": Term(picture=b"..."),
        "vector": Term(vector=np.ones(3)),
    }
    assert {str(term): term for term in shown.values()} == shown


WRONG: list[tuple[dict[str, object], str]] = [
    ({"terms": ()}, "at least one"),
    ({"k": 0}, "at least 1"),
    ({"offset": -1}, "at least 0"),
    ({"find": "videos"}, "images, captions"),
    ({"match": "both"}, "vectors, joint, keywords, hybrid"),
    ({"sort": "size"}, "relevance, date, name"),
    ({"min_probability": 1.5}, "from 0 to 1"),
    ({"diverse": -0.1}, "from 0 to 1"),
    ({"match": "keywords", "terms": (Term(image=1),)}, "Keywords are texts"),
    ({"match": "keywords", "more": (1,)}, "Keywords are texts"),
    ({"match": "hybrid", "terms": (Term(image=1),)}, "need a text"),
    ({"match": "hybrid", "terms": (Term(text="a", weight=-1),)}, "need a text"),
    ({"match": "joint", "find": "captions"}, "Joint"),
    ({"match": "keywords", "min_probability": 0.5}, "probability"),
    ({"find": "captions", "unique": True}, "near-duplicates"),
    ({"diverse": 0.5, "sort": "date"}, "not both"),
]


@pytest.mark.parametrize(("values", "wrong"), WRONG, ids=[wrong for _, wrong in WRONG])
def test_queries_that_contradict_themselves(values: dict[str, object], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        Query(**{"terms": (Term(text="a"),), **values})  # type: ignore[arg-type]


def test_terms_that_are_none() -> None:
    for values, wrong in (
        ({}, "has 0"),
        ({"text": "a", "image": 1}, "has 2"),
        ({"text": "a", "weight": 0.0}, "other than 0"),
        ({"text": "a", "weight": float("nan")}, "other than 0"),
        ({"text": "a", "part": (0, 0, 1, 1)}, "Only pictures have parts"),
    ):
        with pytest.raises(UsageError, match=wrong):
            Term(**values)  # type: ignore[arg-type]


WEIGHTS = st.sampled_from([1.0, 2.0, 0.25, -1.0, -3.5])
PARTS = st.none() | st.just((1.0, 2.0, 30.0, 40.0))
TERMS = st.one_of(
    st.builds(lambda text, weight: Term(text=text, weight=weight), st.text(min_size=1).filter(str.strip), WEIGHTS),
    st.builds(
        lambda image, weight, part: Term(image=image, weight=weight, part=part),
        st.integers(1, 2**63 - 1),
        WEIGHTS,
        PARTS,
    ),
    st.builds(lambda weight, part: Term(picture=Path("/a/b.jpg"), weight=weight, part=part), WEIGHTS, PARTS),
    st.builds(lambda weight: Term(picture="https://a.example/b.jpg", weight=weight), WEIGHTS),
)
FILTERS = st.builds(
    Filters,
    inside=st.just(()) | st.just((Path("/a b"), Path("/c"))),
    after=st.none() | st.just(datetime(2024, 5, 1)),
    near=st.none() | st.just((48.5, -2.25, 10.0)),
    min_width=st.none() | st.integers(1, 9000),
    tags=st.just(()) | st.just(("dog", "a cat")),
    where=st.none() | st.just("width > 3"),
)
QUERIES = st.builds(
    Query,
    terms=st.lists(TERMS, min_size=1, max_size=4).map(tuple),
    find=st.sampled_from(["images", "captions"]),
    k=st.integers(1, 99),
    offset=st.integers(0, 99),
    filters=FILTERS,
    sort=st.sampled_from(["relevance", "date", "name"]),
    min_probability=st.none() | st.just(0.25),
    more=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    less=st.lists(st.integers(10, 19), max_size=3).map(tuple),
)


def as_plain(query: Query) -> dict[str, object]:
    names = ("find", "k", "offset", "filters", "match", "sort", "min_probability", "more", "less", "unique", "diverse")
    plain: dict[str, object] = {name: getattr(query, name) for name in names}
    plain["terms"] = [
        (term.text, str(term.picture), term.image, term.weight, term.part, term.is_url) for term in query.terms
    ]
    return plain


@settings(deadline=None, max_examples=150)
@given(QUERIES)
def test_json_keeps_a_query_whole(query: Query) -> None:
    assert as_plain(from_json(to_json(query))) == as_plain(query)


def test_json_holds_only_what_is_not_as_usual() -> None:
    assert to_json(Query((Term(text="a"),))) == {"terms": [{"text": "a"}]}
    relative = to_json(Query((Term(picture="a.jpg"),)))["terms"][0]["picture"]
    assert relative == str(Path("a.jpg").absolute())  # it must mean the same in another folder


def test_json_that_is_no_query() -> None:
    for kept, wrong in (
        ([], "JSON object"),
        ({"terms": ["a"]}, "JSON object"),
        ({"words": []}, "no words"),
        ({"terms": [{"txt": "a"}]}, "no txt"),
        ({"terms": [{"text": "a"}], "filters": {"colour": 1}}, "no filter colour"),
    ):
        with pytest.raises(UsageError, match=wrong):
            from_json(kept)  # type: ignore[arg-type]
    for term in (Term(vector=np.ones(3)), Term(picture=b"x")):
        with pytest.raises(UsageError, match="can be kept"):
            to_json(Query((term,)))
