"""Whole queries against a slow oracle: filters, pages, sorting, cut-off, folding, words and vectors together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch import Engine, Query, Term, errors, views
from mmsearch.duplicates import same_picture
from mmsearch.filters import Filters
from mmsearch.relevance import Scale
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder

SCALE = Scale(12.0, -9.0)  # even chances at a cosine of 0.75


class Fixed:
    """A calibration that is the same for every query."""

    kind = "encoder"

    def scale(self, query: Any, direction: str, best: Any, among: int) -> Scale:
        return SCALE

    def spread(self, modality: str) -> float:
        return 1.0


@dataclass
class Known:
    """What the test knows of one image."""

    key: str
    colour: str
    camera: str | None
    taken_at: datetime | None
    place: tuple[float, float] | None
    size: tuple[int, int]
    captions: tuple[str, ...]
    id: int = 0
    sha256: str = ""
    row: Any = None
    hash: bytes | None = None


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, list[Known]]]:
    """Forty pictures by key, some nearly the same, with whatever metadata chance gives them."""
    rng = np.random.default_rng(5)
    encoder = ToyEncoder()
    known: list[Known] = []
    last = np.zeros(1)
    patch = pytest.MonkeyPatch()
    patch.setattr(views, "calibration_for", lambda *_: Fixed())
    with Engine.open(tmp_path_factory.mktemp("querying") / "c", model=encoder) as engine:
        for number in range(40):
            colour = list(COLOURS)[number % 8]
            size = [(40, 30), (30, 40), (32, 32)][rng.integers(3)]
            pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 30, (size[1], size[0], 3)), 0, 255)
            if number % 5 == 4:  # as the one before, brightened a little
                pixels = np.clip(last + 4.0, 0, 255)
                size = known[-1].size
            last = pixels
            one = Known(
                key=f"{['b', 'A', 'c'][rng.integers(3)]}{number:02}",
                colour=colour,
                camera=[None, "Canon EOS", "Nikon Z6"][rng.integers(3)],
                taken_at=None
                if rng.random() < 0.3
                else datetime(2020 + int(rng.integers(4)), 1 + int(rng.integers(12)), 5),
                place=None if rng.random() < 0.5 else (48 + float(rng.random()), 11 + float(rng.random())),
                size=size,
                captions=tuple(
                    rng.choice(["a red thing", "the sea", "a dog by the sea"], rng.integers(0, 3), replace=False)
                ),
            )
            metadata: dict[str, object] = {"caption": list(one.captions)} if one.captions else {}
            metadata |= {"camera": one.camera} if one.camera else {}
            metadata |= {"taken_at": one.taken_at} if one.taken_at else {}
            metadata |= {"latitude": one.place[0], "longitude": one.place[1]} if one.place else {}
            one.id = engine.add(one.key, pixels.astype(np.uint8), metadata)
            known.append(one)
        engine.index()
        with engine._catalog.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT image.id, hex(image.sha256), image.perceptual_hash, vector.data FROM image "
                "JOIN vector ON vector.owner = image.id AND vector.kind = 'images'"
            ).all()
        by_id = {row[0]: row for row in rows}
        for one in known:
            _, sha256, one.hash, data = by_id[one.id]
            one.sha256, one.row = sha256.lower(), np.frombuffer(data, "<f2").astype(np.float64)
        yield engine, known
    patch.undo()


def satisfies(one: Known, filters: Filters) -> bool:
    width, height = one.size
    checks = [
        filters.after is None or (one.taken_at is not None and one.taken_at >= filters.after),
        filters.before is None or (one.taken_at is not None and one.taken_at < filters.before),
        not filters.camera or any(name.lower() in (one.camera or "").lower() for name in filters.camera),
        filters.min_width is None or width >= filters.min_width,
        filters.orientation is None
        or filters.orientation == ("landscape" if width > height else "portrait" if width < height else "square"),
        "caption" not in filters.has or bool(one.captions),
        "gps" not in filters.has or one.place is not None,
        "date" not in filters.has or one.taken_at is not None,
        filters.where is None or width < 40 or one.camera == "Canon EOS",
    ]
    return all(checks)


WHERE = "width < 40 or camera = 'canon eos'"
FILTERS = st.builds(
    Filters,
    after=st.none() | st.just(datetime(2021, 6, 1)),
    before=st.none() | st.just(datetime(2023, 1, 1)),
    camera=st.sampled_from([(), ("canon",), ("nikon", "canon")]),
    min_width=st.none() | st.sampled_from([31, 33]),
    orientation=st.none() | st.sampled_from(["landscape", "portrait", "square"]),
    has=st.sampled_from([(), ("caption",), ("gps", "date")]),
    where=st.none() | st.just(WHERE),
)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    sort = draw(st.sampled_from(["relevance", "date", "name"]))
    terms = draw(
        st.lists(
            st.builds(
                lambda text, weight: Term(text=text, weight=weight),
                st.sampled_from([*COLOURS, "a dog", "red green"]),
                st.sampled_from([1.0, 2.0, -0.5]),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda term: term.text,
        ).filter(lambda terms: any(term.weight > 0 for term in terms))
    )
    return Query(
        tuple(terms),
        k=draw(st.integers(1, 45)),
        offset=draw(st.sampled_from([0, 0, 1, 7, 38])),
        filters=draw(FILTERS),
        sort=sort,
        min_probability=draw(st.none() | st.sampled_from([0.2, 0.5, 0.8])),
        unique=draw(st.booleans()),
    )


def expected_scale(known: list[Known], query: Query, vector: Any) -> tuple[float, float]:
    """With unwanted terms, the best of all is as likely as the best without them, and the tenth lies as far below."""
    if all(term.weight > 0 for term in query.terms):
        return SCALE.slope, SCALE.intercept
    wanted = [term for term in query.terms if term.weight > 0]
    plain = sum(term.weight * ToyEncoder().encode_texts([term.text or ""])[0].astype(np.float64) for term in wanted)
    rows = np.stack([one.row / np.linalg.norm(one.row) for one in known])
    before, after = (np.sort(rows @ one)[::-1][:10] for one in (plain / np.linalg.norm(plain), vector))
    ratio = max(before[0] - before[9], 1e-3) / max(after[0] - after[9], 1e-3)
    slope = SCALE.slope * min(max(ratio, 0.5), 2.0)
    return slope, SCALE.slope * before[0] + SCALE.intercept - slope * after[0]


def expected(known: list[Known], query: Query) -> list[tuple[Known, float, float, list[Known]]]:
    """(image, score, probability, folded) of every answer, in order; written without any of the product's code."""
    encoder = ToyEncoder()
    total = sum(term.weight * encoder.encode_texts([term.text or ""])[0].astype(np.float64) for term in query.terms)
    vector = (total / np.linalg.norm(total)).astype(np.float32).astype(np.float64)
    slope, intercept = expected_scale(known, query, vector)
    found = []
    for one in known:
        if satisfies(one, query.filters):
            score = float(np.float32(one.row @ vector / np.linalg.norm(one.row)))
            found.append((one, score, 1 / (1 + np.exp(-(slope * score + intercept)))))
    found.sort(key=lambda each: (-each[1], each[0].sha256))
    least = 0.5 if query.min_probability is None else query.min_probability
    if query.min_probability is not None:
        found = [each for each in found if each[2] >= least]
    groups: list[list[Any]] = []
    for each in found:
        same = [group for group in groups if query.unique and same_picture(group[0][0].hash, each[0].hash)]
        if same:
            same[0].append(each)
        else:
            groups.append([each])
    relevant = [group for group in groups if group[0][2] >= least]
    others = groups[len(relevant) :]
    if query.sort == "date":
        dated = [group for group in relevant if group[0][0].taken_at]
        relevant = sorted(dated, key=lambda group: group[0][0].taken_at, reverse=True) + [
            group for group in relevant if not group[0][0].taken_at
        ]
    elif query.sort == "name":
        relevant.sort(key=lambda group: group[0][0].key.casefold())
    return [(*group[0], [each[0] for each in group[1:]]) for group in relevant + others]


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=queries())
def test_like_brute_force(collection: tuple[Engine, list[Known]], query: Query) -> None:
    engine, known = collection
    everything = expected(known, query)
    page = everything[query.offset : query.offset + query.k]
    result = engine.search(query)
    assert [hit.key for hit in result] == [one.key for one, *_ in page]
    assert [hit.score for hit in result] == pytest.approx([score for _, score, *_ in page], abs=1e-6)
    assert [hit.probability for hit in result] == pytest.approx([probability for *_, probability, _ in page], rel=1e-4)
    assert [hit.rank for hit in result] == list(range(query.offset + 1, query.offset + 1 + len(page)))
    least = 0.5 if query.min_probability is None else query.min_probability
    assert result.relevant == sum(probability >= least for *_, probability, _ in page)
    for hit, (*_, folded) in zip(result, page, strict=True):
        assert [other.key for other in hit.folded] == [one.key for one in folded]
        assert sum(share.score for share in hit.shares) == pytest.approx(hit.score, abs=1e-6)
    assert len(result.hits) == min(query.k, max(0, len(everything) - query.offset))


def test_the_toy_has_what_the_oracle_needs(collection: tuple[Engine, list[Known]]) -> None:
    """Near-duplicates, both sides of the cut-off, equal names but for case: else the comparison means little."""
    engine, known = collection
    assert any(len(hit.folded) for hit in engine.search(Query((Term(text="red"),), k=40, unique=True)))
    result = engine.search("red", k=40)
    assert 0 < (result.relevant or 0) < 40
    assert sum(satisfies(one, Filters(where=WHERE)) for one in known) not in (0, 40)


def test_pages_put_together_are_the_whole(collection: tuple[Engine, list[Known]]) -> None:
    engine, _ = collection
    for query in (
        Query((Term(text="red"),)),
        Query((Term(text="red"),), unique=True),
        Query((Term(text="red"),), diverse=0.5),
        Query((Term(text="red"),), diverse=0.5, unique=True),
        Query((Term(text="red"),), sort="date"),
        Query((Term(text="dog sea red"),), match="hybrid"),
        Query((Term(text="sea"),), match="keywords"),
        Query(filters=Filters(has=("caption",))),
        Query((Term(text="the sea"),), find="captions"),
    ):
        whole = [(hit.id, hit.caption, hit.score) for hit in engine.search(query, k=500)]
        pages = []
        for offset in range(0, 60, 7):
            page = engine.search(replace(query, k=7, offset=offset))
            pages += [(hit.id, hit.caption, hit.score) for hit in page]
        assert pages == whole
        assert len(whole) > 5


def test_filters_alone_list_what_there_is(collection: tuple[Engine, list[Known]]) -> None:
    engine, known = collection
    result = engine.search(Query(filters=Filters(has=("gps",)), k=99))
    wanted = [one for one in known if one.place]
    wanted.sort(key=lambda one: (one.taken_at is None, -(one.taken_at or datetime.min).toordinal(), one.sha256))
    assert [hit.key for hit in result] == [one.key for one in wanted]
    assert (result.relevant, {hit.score for hit in result}, {hit.probability for hit in result}) == (
        None,
        {0.0},
        {None},
    )
    by_name = engine.search(Query(filters=Filters(has=("gps",)), k=99, sort="name"))
    assert [hit.key for hit in by_name] == sorted((one.key for one in wanted), key=str.casefold)


def test_near_decides_by_distance(collection: tuple[Engine, list[Known]]) -> None:
    engine, known = collection
    hits = engine.search(Query((Term(text="red"),), filters=Filters(near=(48.5, 11.5, 40)), k=99))

    def kilometres(place: tuple[float, float]) -> float:
        (a, b), (c, d) = np.radians(place), np.radians((48.5, 11.5))
        return float(6371.0088 * np.arccos(np.sin(a) * np.sin(c) + np.cos(a) * np.cos(c) * np.cos(b - d)))

    assert {hit.key for hit in hits} == {one.key for one in known if one.place and kilometres(one.place) <= 40}


# --- words --------------------------------------------------------------------------------------------------------


def test_keywords_find_all_words_and_nothing_else(collection: tuple[Engine, list[Known]]) -> None:
    engine, known = collection
    hits = engine.search(Query((Term(text="dogs by the sea"),), match="keywords", k=99))
    assert {hit.key for hit in hits} == {one.key for one in known if "a dog by the sea" in one.captions}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    without = engine.search(Query((Term(text="sea"), Term(text="dog", weight=-1)), match="keywords", k=99))
    assert {hit.key for hit in without} == {
        one.key for one in known if one.captions and {*one.captions} & {"the sea"}
    } - {one.key for one in known if "a dog by the sea" in one.captions}
    by_key = engine.search(Query((Term(text=known[3].key),), match="keywords"))
    assert [hit.key for hit in by_key] == [known[3].key]


def test_hybrid_is_reciprocal_ranks_of_both(collection: tuple[Engine, list[Known]]) -> None:
    engine, known = collection
    text = "a red dog"
    vectors = [hit.key for hit in engine.search(text, k=99)]
    both = engine.search(Query((Term(text=text),), match="hybrid", k=99))
    assert len(both) == 40
    words = {hit.key: hit.shares[1].score for hit in both if hit.shares[1].score}
    every = {one.key for one in known if {"a red thing", "a dog by the sea"} <= {*one.captions}}
    assert every <= set(words)
    assert set(words) <= {one.key for one in known if {"a red thing", "a dog by the sea"} & {*one.captions}}
    assert 0 < len(every) < 20
    assert sorted(words.values(), reverse=True) == [pytest.approx(1 / (60 + rank)) for rank in range(1, len(words) + 1)]
    for hit in both:
        by_vectors, by_words = hit.shares
        assert (by_vectors.term, by_words.term) == ("vectors", "keywords")
        assert by_vectors.score == pytest.approx(1 / (61 + vectors.index(hit.key)))
        assert hit.score == pytest.approx(by_vectors.score + by_words.score)
    scores = [hit.score for hit in both]
    assert scores == sorted(scores, reverse=True)
    likely = {hit.key for hit in both if (hit.probability or 0) >= 0.5}
    assert both.relevant == len(every | likely)


def test_captions_are_filtered_and_found_by_words_too(collection: tuple[Engine, list[Known]]) -> None:
    engine, known = collection
    filters = Filters(camera=("canon",))
    for match in ("vectors", "keywords", "hybrid"):
        query = Query((Term(text="sea"),), find="captions", match=match, filters=filters, k=99)  # type: ignore[arg-type]
        hits = engine.search(query)
        of = [one for one in known if one.camera == "Canon EOS"]
        wanted = {(one.key, text) for one in of for text in one.captions if match != "keywords" or "sea" in text}
        assert {(hit.key, hit.caption) for hit in hits} == wanted


def test_words_follow_what_happens_to_a_collection(engine: Engine, images: Path) -> None:
    def found(text: str) -> set[str]:
        hits = engine.search(Query((Term(text=text),), match="keywords", k=99))
        return {hit.path.name for hit in hits if hit.path}

    (images / "red.txt").write_text("Granny's bicycle\n")
    engine.index(images)
    assert found("bicycle") == {"red.png"}
    assert found("more") == {"red one.jpg", "red two.webp"}  # a folder
    assert found("png") >= {"blue.png", "green.png"}
    (images / "red.txt").write_text("a tandem\n")
    (images / "blue.png").rename(images / "sky.png")
    engine.index(images)
    assert (found("bicycle"), found("tandem"), found("sky"), found("blue")) == (set(), {"red.png"}, {"sky.png"}, set())
    (images / "sky.png").unlink()
    engine.index(images)
    assert found("sky") == set()
    engine.index(images, prune=True)
    with engine._catalog.reading() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM image_fts").scalar()
        assert rows == connection.exec_driver_sql("SELECT count(*) FROM image").scalar() == 9
        assert connection.exec_driver_sql("SELECT count(*) FROM image_fts_stale").scalar() == 0


# --- filters and files ----------------------------------------------------------------------------------------------


def test_paths_are_the_files_that_satisfy_the_filters(engine: Engine, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "copy.png").write_bytes((images / "red.png").read_bytes())
    engine.index([images, other])
    hits = engine.search(Query((Term(text="red"),), filters=Filters(inside=(other,)), k=99))
    assert [hit.paths for hit in hits] == [(other / "copy.png",)]
    hits = engine.search(Query((Term(text="red"),), filters=Filters(where="name like 'red%'"), k=99))
    assert (images / "red.png",) in [hit.paths for hit in hits]
    assert len(hits) == 3


def test_filters_that_name_what_is_not_there(engine: Engine, images: Path, tmp_path: Path) -> None:
    engine.index(images)
    for values, wrong in (
        ({"tags": ("dgo",)}, "dgo"),
        ({"inside": (tmp_path / "nowhere",)}, "nowhere"),
        ({"where": "width > "}, "column 8"),
    ):
        with pytest.raises(errors.UsageError, match=wrong):
            engine.search(Query((Term(text="red"),), filters=Filters(**values)))  # type: ignore[arg-type]


def test_an_open_engine_follows_changes_under_the_same_filter(engine: Engine, images: Path) -> None:
    query = Query((Term(text="red"),), filters=Filters(where="name like '%new%'"), k=99)
    engine.index(images)
    assert len(engine.search(query)) == 0
    with Engine.open(engine.folder, model=ToyEncoder()) as other:
        paint(images / "new one.png", "red", 77)
        other.index(images)
        assert len(engine.search(query)) == 1
        (images / "new one.png").unlink()
        other.index(images)
    assert len(engine.search(query)) == 0


# --- diversity ------------------------------------------------------------------------------------------------------


def test_diverse_answers_stay_relevant(collection: tuple[Engine, list[Known]]) -> None:
    engine, _ = collection
    plain = engine.search(Query((Term(text="red"),), k=40))
    mixed = engine.search(Query((Term(text="red"),), k=40, diverse=0.5))
    assert mixed[0].id == plain[0].id
    assert plain.relevant == mixed.relevant
    count = plain.relevant or 0
    assert {hit.id for hit in mixed.hits[:count]} == {hit.id for hit in plain.hits[:count]}
    assert [hit.id for hit in mixed.hits[count:]] == [hit.id for hit in plain.hits[count:]]
    assert [hit.id for hit in mixed.hits[:count]] != [hit.id for hit in plain.hits[:count]]


def test_a_flat_picture_is_no_near_duplicate(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        for number, colour in enumerate(["red", "green", "blue"]):
            engine.add(str(number), Image.new("RGB", (40, 40), COLOURS[colour]))
        assert len(engine.search(Query((Term(text="red"),), unique=True))) == 3


def test_where_no_probability_is_known_the_nearest_are_sorted(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c", model=ToyEncoder()) as engine:
        rng = np.random.default_rng(1)
        for number in range(130):
            colour = "red" if number < 90 else "blue"
            pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 30, (20, 20, 3)), 0, 255)
            engine.add(f"{129 - number:03}", pixels.astype(np.uint8), {"caption": "a thing"})
        nearest = [hit.key for hit in engine.search("red", k=130)]
        for query in (
            Query((Term(text="red"),), sort="name", k=130, match="joint"),
            Query((Term(text="blue", weight=-1),), sort="name", k=130),
        ):
            plain = [hit.key for hit in engine.search(replace(query, sort="relevance"))]
            result = engine.search(query)
            assert (result.relevant, {hit.probability for hit in result}) == (None, {None})
            assert [hit.key for hit in result] == [*sorted(key for key in plain[:100] if key), *plain[100:]]
        assert len(nearest) == 130
        with pytest.raises(errors.UsageError, match="not known"):
            engine.search(Query((Term(text="blue", weight=-1),), min_probability=0.5))


def test_filters_do_not_change_how_likely_an_image_is(engine: Engine, images: Path) -> None:
    for number in range(60):
        paint(images / f"{number}.png", list(COLOURS)[number % 8], 1000 + number)
    engine.index(images)
    plain = {hit.id: hit.probability for hit in engine.search("red", k=99)}
    assert None not in plain.values()
    for filters in (Filters(where="name like '%1%'"), Filters(inside=(images / "more",)), Filters(format=("webp",))):
        some = engine.search(Query((Term(text="red"),), filters=filters, k=99))
        assert {hit.id: hit.probability for hit in some} == {hit.id: plain[hit.id] for hit in some}
        assert 0 < len(some) < len(plain)


def test_words_tie_by_content_and_not_by_the_order_of_arrival(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / "ab"[number % 2] / f"p{number}.png", "red", number).with_suffix(".txt").write_text("a boat")
    answers = []
    for order in (["a", "b"], ["b", "a"]):
        with Engine.open(tmp_path / f"c{order[0]}", model=ToyEncoder()) as engine:
            for folder in order:
                engine.index(tmp_path / folder)
            for match in ("keywords", "hybrid"):
                for find in ("images", "captions"):
                    query = Query((Term(text="boat"),), match=match, find=find, k=4)  # type: ignore[arg-type]
                    answers.append([hit.sha256 for hit in engine.search(query)])
    assert answers[:4] == answers[4:]


def test_many_answers_are_folded_in_good_time(tmp_path: Path) -> None:
    """As many as a listing of a whole collection folds; comparing them one by one took hours at 100,000."""
    from mmsearch.arranging import Candidate, Ranking, unique
    from mmsearch.catalog.read import Found

    rng = np.random.default_rng(3)
    hashes = [rng.bytes(16) for _ in range(400)]
    hashes += [hashes[number] for number in range(0, 400, 3)] + [b"\0" * 16, b"\0" * 16]
    found = [Candidate(Found(0, n, n, bytes([n % 256]), None, np.empty(0, np.float16)), -n) for n in range(len(hashes))]
    ranking = unique(Ranking(lambda n: found[:n]), lambda images: {image: hashes[image] for image in images})
    groups = [[one.found.image, *(other.found.image for other in one.folded)] for one in ranking.first(10_000)]
    slow: list[list[int]] = []
    for number, mine in enumerate(hashes):
        same = next((group for group in slow if same_picture(hashes[group[0]], mine)), None)
        if same is None:
            slow.append([number])
        else:
            same.append(number)
    assert groups == slow
    assert [one.found.image for one in ranking.first(7)] == [group[0] for group in slow[:7]]
