"""Conditions in SQL against a slow oracle in Python that knows nothing of trees or SQL: random catalogs, random
expressions and filters. The oracle has three-valued logic, LIKE and file names of its own."""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select

from mmsearch.catalog import where
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.tables import caption, file, image, image_tag, picture_text, root, tag
from mmsearch.conditions import Node
from mmsearch.errors import UsageError
from mmsearch.filters import Filters, parse

# --- a small world ------------------------------------------------------------------------------------------------

TAGS = ("cat", "Dog", "big dog", "50%", "été")
ROOTS = (b"/pics", b"/pics2", b"/", b"/a_b/c%", b"")  # the last one is for keys
RELATIVE = (
    *(b"1.jpg", b"a/2.JPG", b"a/b/IMG_3.png", b"100%/4.jpg", b"1000/4.jpg", b"a_b/5.jpg", b"axb/5.jpg"),
    *(b"caf\xe9/x.jpg", "été/Ü.png".encode(), b"pics/6.jpg", b"a b/7 (1).jpg", b"A/IMG_3.PNG"),
)
MOMENTS = (
    *(None, datetime(2023, 12, 31, 23, 59, 59, 999999), datetime(2024, 1, 1), datetime(2024, 2, 29, 6, 30)),
    *(
        datetime(2024, 3, 1),
        datetime(2024, 5, 1, 14, 30, 15, 250000),
        datetime(2024, 5, 1, 14, 31),
        datetime(9999, 12, 31),
    ),
)
LATITUDES = (None, -90.0, -33.9, 0.0, 48.1, 48.2, 89.95, 90.0)
LONGITUDES = (None, -180.0, -179.9, 0.0, 11.5, 11.7, 179.95, 180.0)
TEXTS = ("", "SALE 50%", "a dog_and a cat", "été", "A DOG")


@dataclass
class Picture:
    id: int
    values: dict[str, Any]
    tags: list[str]
    captions: list[str]
    inside: str | None
    files: list[tuple[bytes, bytes, str]] = field(default_factory=list)  # root, relative, status


pictures = st.builds(
    Picture,
    id=st.just(0),
    values=st.fixed_dictionaries(
        {
            "width": st.sampled_from([None, 10, 20, 1920]),
            "height": st.sampled_from([10, 20, 1080]),
            "format": st.sampled_from([None, "jpeg", "png"]),
            "taken_at": st.sampled_from(MOMENTS),
            "camera": st.sampled_from([None, "Canon EOS 5D", "NIKON D90", "canon", "Kamera é_%"]),
            "lens": st.sampled_from([None, "EF 50mm f/1.8", ""]),
            "latitude": st.sampled_from(LATITUDES),
            "longitude": st.sampled_from(LONGITUDES),
        }
    ),
    tags=st.lists(st.sampled_from(TAGS), unique=True, max_size=3),
    captions=st.lists(st.sampled_from(TEXTS), unique=True, max_size=2),
    inside=st.sampled_from([None, *TEXTS]),
)


@st.composite
def worlds(draw: st.DrawFn) -> list[Picture]:
    """Pictures that lie at several places each; no place has two."""
    made = draw(st.lists(pictures, min_size=1, max_size=5))
    places = draw(st.lists(st.tuples(st.sampled_from(ROOTS), st.sampled_from(RELATIVE)), unique=True, max_size=12))
    for place in places:
        status = draw(st.sampled_from(["ok", "ok", "ok", "missing", "failed"]))
        draw(st.sampled_from(made)).files.append((*place, status))
    for number, one in enumerate(made, 1):
        one.id = number
        if one.values["width"] is None:
            one.values["height"] = None
    return made


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    made = Catalog(tmp_path_factory.mktemp("where") / "c", create=True)
    with made.reading():
        pass
    yield made
    made.close()


@contextmanager
def holding(catalog: Catalog, world: list[Picture]) -> Iterator[Connection]:
    """A transaction in which the catalog holds this world; nothing of it stays."""
    with catalog.writing() as connection:
        undo = connection.begin_nested()
        now = datetime(2024, 1, 1)
        connection.execute(insert(root), [{"id": n, "path": path, "added_at": now} for n, path in enumerate(ROOTS, 1)])
        connection.execute(insert(tag), [{"id": n, "name": name} for n, name in enumerate(TAGS, 1)])
        for one in world:
            connection.execute(insert(image).values(id=one.id, sha256=bytes([one.id]) * 32, **one.values))
            for name in one.tags:
                for source in ("person", "zero-shot"):
                    values = {"image": one.id, "tag": TAGS.index(name) + 1, "source": source}
                    connection.execute(insert(image_tag).values(values))
            for text in one.captions:
                connection.execute(insert(caption).values(image=one.id, text=text, source="given"))
            if one.inside is not None:
                connection.execute(insert(picture_text).values(image=one.id, text=one.inside, read_by="x"))
            for path, relative, status in one.files:
                values = {"root": ROOTS.index(path) + 1, "relative": relative, "image": one.id, "status": status}
                connection.execute(insert(file).values(size=1, mtime_ns=1, **values))
        yield connection
        undo.rollback()


Row = tuple[Picture, bytes, bytes]  # a picture, and a root and a path of one of its present files


def matching(connection: Connection, node: Node) -> set[tuple[int, bytes, bytes]]:
    """(image, root, relative) of the present files that satisfy a condition."""
    joined = image.join(file, file.c.image == image.c.id).join(root, root.c.id == file.c.root)
    query = select(image.c.id, root.c.path, file.c.relative).select_from(joined).where(file.c.status == "ok")
    return {(row[0], row[1], row[2]) for row in connection.execute(query.where(where.condition(node)))}


def expected(world: list[Picture], holds: Callable[[Row], bool | None]) -> set[tuple[int, bytes, bytes]]:
    rows = [(one, path, relative) for one in world for path, relative, status in one.files if status == "ok"]
    return {(row[0].id, row[1], row[2]) for row in rows if holds(row) is True}


# --- the oracle ---------------------------------------------------------------------------------------------------


def small(text: str) -> str:
    """ASCII letters in small, others as they are."""
    return "".join(chr(ord(one) + 32) if "A" <= one <= "Z" else one for one in text)


def like(text: str, pattern: str) -> bool:
    parts = {"%": ".*", "_": "."}
    found = "".join(parts.get(one) or re.escape(one) for one in small(pattern))
    return re.fullmatch(found, small(text), re.DOTALL) is not None


def place_of(row: Row) -> str | None:
    return os.fsdecode(row[1].rstrip(b"/") + b"/" + row[2]) if row[1] else None


def times(row: Row, part: str) -> int | None:
    moment = row[0].values["taken_at"]
    return None if moment is None else int(getattr(moment, part))


def megapixels(row: Row) -> float | None:
    width = row[0].values["width"]
    return None if width is None else width * row[0].values["height"] / 1e6


def shape(row: Row) -> str | None:
    width, height = row[0].values["width"], row[0].values["height"]
    return None if width is None else ("square", "landscape", "portrait")[(width > height) + 2 * (width < height)]


ONE: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: row[0].id,
    "width": lambda row: row[0].values["width"],
    "height": lambda row: row[0].values["height"],
    "megapixels": megapixels,
    "aspect": lambda row: row[0].values["width"] and row[0].values["width"] / row[0].values["height"],
    "year": lambda row: times(row, "year"),
    "month": lambda row: times(row, "month"),
    "day": lambda row: times(row, "day"),
    "hour": lambda row: times(row, "hour"),
    "latitude": lambda row: row[0].values["latitude"],
    "longitude": lambda row: row[0].values["longitude"],
    "date": lambda row: row[0].values["taken_at"],
    "format": lambda row: row[0].values["format"],
    "orientation": shape,
    "camera": lambda row: row[0].values["camera"],
    "lens": lambda row: row[0].values["lens"],
    "name": lambda row: os.fsdecode(row[2]).split("/")[-1],
    "folder": lambda row: "/".join(os.fsdecode(row[2]).split("/")[:-1]),
    "path": place_of,
}
MANY: dict[str, Callable[[Row], list[str]]] = {
    "tag": lambda row: row[0].tags,
    "caption": lambda row: row[0].captions,
    "text": lambda row: [row[0].inside] if row[0].inside else [],
}
NUMBERS = ("id", "width", "height", "megapixels", "aspect", "year", "month", "day", "hour", "latitude", "longitude")
WORDS = ("format", "orientation", "camera", "lens", "name", "folder", "path", *MANY)
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

Asked = tuple[str, Callable[[Row], bool | None]]  # an expression, and what it means


def asked(name: str, text: str, holds: Callable[[Any], bool], negated: bool) -> Asked:
    """One condition: of the one value, unknown without it; or of any of many."""

    def one(row: Row) -> bool | None:
        value = ONE[name](row)
        return None if value is None else holds(value) is not negated

    return text, (lambda row: any(map(holds, MANY[name](row))) is not negated) if name in MANY else one


NUMBER_LITERALS = ("-90", "0", "1", "2", "5.", "10", "0.0002", "2.0736", "1.5", "1e1", "20", "48.1", "180", "2024")
LITERALS = {
    "format": ("JPEG", "png"),
    "orientation": ("Landscape", "portrait", "square"),
    "camera": ("canon", "Canon EOS 5D", "nikon d90", "x"),
    "lens": ("", "ef 50MM F/1.8"),
    "name": ("1.jpg", "img_3.png", "Ü.PNG", "ü.png", "7 (1).jpg"),
    "folder": ("", "a", "A/B", "100%", "caf\udce9", "été"),
    "path": ("/pics/1.jpg", "/1.jpg", "/a_b/c%/a/2.jpg", "/caf\udce9/x.jpg"),
    "tag": ("dog", "CAT", "50%", "Été"),
    "caption": ("a dog", "", "sale 50%"),
    "text": ("a dog", "", "sale 50%"),
}
PATTERNS = ("%", "", "%dog%", "canon%", "%_", "1.jp_", "%/a/%", "/pics%", "%É%", "%é%", "%\udce9%", "%50%", "%.png")
# A date as it is written, the moment it begins and the one after it ends.
SPANS = (
    ("'2023'", datetime(2023, 1, 1), datetime(2024, 1, 1)),
    ("2024", datetime(2024, 1, 1), datetime(2025, 1, 1)),
    ("2024-02", datetime(2024, 2, 1), datetime(2024, 3, 1)),
    ("'2024-02-29'", datetime(2024, 2, 29), datetime(2024, 3, 1)),
    ("'2024-05-01 14:30'", datetime(2024, 5, 1, 14, 30), datetime(2024, 5, 1, 14, 31)),
    ("'9999'", datetime(9999, 1, 1), datetime.max),
)


def quoted(text: str, quote: str = "'") -> str:
    return quote + text.replace(quote, quote * 2) + quote


def every_condition() -> Iterator[Asked]:
    """Each field with each operator and each literal."""
    for name in (*NUMBERS, *WORDS):
        if name in WORDS:
            values: list[tuple[str, Any]] = [(quoted(text), small(text)) for text in LITERALS[name]]
        else:
            values = [(text, float(text)) for text in NUMBER_LITERALS]
        known = small if name in WORDS else lambda value: value
        for written, wanted in values:
            for sign, holds in SIGNS.items():
                yield asked(name, f"{name} {sign} {written}", lambda v, h=holds, k=known, w=wanted: h(k(v), w), False)
            for sign in ("!=", "<>"):
                yield asked(name, f"{name}{sign}{written}", lambda v, k=known, w=wanted: k(v) == w, True)
        for (first, low), (second, high) in zip(values, [*values[1:], values[0]], strict=True):
            among, ends = {low, high}, (low, high)
            for no, word in ((False, ""), (True, "NOT  ")):
                yield asked(name, f"{name} {word}in ({first}, {second})", lambda v, k=known, a=among: k(v) in a, no)
                between = lambda v, k=known, e=ends: e[0] <= k(v) <= e[1]  # noqa: E731
                yield asked(name, f"{name} {word}between {first} and {second}", between, no)
        for pattern in PATTERNS if name in WORDS else ():
            if name in ("format", "orientation") and not set("%_") & set(pattern):
                continue  # these know their values
            for no, word in ((False, ""), (True, "not ")):
                yield asked(name, f"{name} {word}like {quoted(pattern, chr(34))}", lambda v, p=pattern: like(v, p), no)
        yield from every_null(name)
    yield from every_date()
    yield from every_null("date")


def every_null(name: str) -> Iterator[Asked]:
    def empty(row: Row) -> bool:
        return not MANY[name](row) if name in MANY else ONE[name](row) is None

    yield f"{name} is null", empty
    yield f"{name} is not null", lambda row: not empty(row)


def every_date() -> Iterator[Asked]:
    for (written, start, end), (other, other_start, other_end) in zip(SPANS, [*SPANS[1:], SPANS[0]], strict=True):
        meant: dict[str, Callable[[Any], bool]] = {
            f"= {written}": lambda v, s=start, e=end: s <= v < e,
            f"< {written}": lambda v, s=start: v < s,
            f"<= {written}": lambda v, e=end: v < e,
            f"> {written}": lambda v, e=end: v >= e,
            f">= {written}": lambda v, s=start: v >= s,
            f"in ({written}, {other})": lambda v, s=start, e=end, t=other_start, f=other_end: s <= v < e or t <= v < f,
            f"between {written} and {other}": lambda v, s=start, f=other_end: s <= v < f,
        }
        for text, holds in meant.items():
            yield asked("date", f"date {text}", holds, False)
            if text[0] in "ib":
                yield asked("date", f"date not {text}", holds, True)
        yield asked("date", f"date != {written}", lambda v, s=start, e=end: s <= v < e, True)


def both(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def either(first: bool | None, second: bool | None) -> bool | None:
    if first is True or second is True:
        return True
    return None if first is None or second is None else False


def opposite(value: bool | None) -> bool | None:
    return None if value is None else not value


def larger(inner: st.SearchStrategy[Asked]) -> st.SearchStrategy[Asked]:
    """Parentheses everywhere: what they are needed for is a matter of parsing, which test_filters looks at."""
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", lambda row: both(p[0][1](row), p[1][1](row)))),
        pairs.map(lambda p: (f"({p[0][0]}) OR ({p[1][0]})", lambda row: either(p[0][1](row), p[1][1](row)))),
        inner.map(lambda one: (f"not ({one[0]})", lambda row: opposite(one[1](row)))),
    )


SLOW = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


CONDITIONS = list(every_condition())
conditions = st.sampled_from(CONDITIONS)


def varied_world() -> list[Picture]:
    """A file at every place, and every value."""
    places = [(path, relative) for path in ROOTS for relative in RELATIVE]
    world = []
    for number in range(1, 31):
        width = (None, 10, 20, 1920)[number % 4]
        values = {
            "width": width,
            "height": None if width is None else (10, 20, 1080)[number % 3],
            "format": (None, "jpeg", "png")[number % 3],
            "taken_at": MOMENTS[number % len(MOMENTS)],
            "camera": (None, "Canon EOS 5D", "NIKON D90", "canon", "Kamera é_%\\")[number % 5],
            "lens": (None, "EF 50mm f/1.8", "")[number % 3],
            "latitude": LATITUDES[number % len(LATITUDES)],
            "longitude": LONGITUDES[number // 2 % len(LONGITUDES)],
        }
        tags = [name for bit, name in enumerate(TAGS) if number >> bit & 1]
        captions = [text for bit, text in enumerate(TEXTS) if number % 7 >> bit & 1]
        world.append(Picture(number, values, tags, captions, (None, *TEXTS)[number % 6]))
    for number, place in enumerate(places):
        status = "missing" if number % 11 == 5 else "ok"
        world[number * 7 % 30].files.append((*place, status))
    return world


def test_every_field_with_every_operator(catalog: Catalog) -> None:
    world = varied_world()
    kinds = set()
    with holding(catalog, world) as connection:
        for text, holds in CONDITIONS:
            wanted = expected(world, holds)
            assert matching(connection, parse(text)) == wanted, text
            kinds.add(0 if not wanted else 1 if len(wanted) < 55 else 2)
    assert len(CONDITIONS) > 1500
    assert kinds == {0, 1, 2}  # some choose nothing, some everything, and some, which tell most, a part


@SLOW
@given(world=worlds(), one=conditions | st.recursive(conditions, larger, max_leaves=5))
def test_expressions_choose_what_they_say(catalog: Catalog, world: list[Picture], one: Asked) -> None:
    with holding(catalog, world) as connection:
        assert matching(connection, parse(one[0])) == expected(world, one[1])


# --- the filters by name ------------------------------------------------------------------------------------------

HOLDS: dict[str, Callable[[Any, Row], bool | None]] = {
    "inside": lambda folders, row: any(below(place_of(row), folder) for folder in folders),
    "after": lambda moment, row: (value := row[0].values["taken_at"]) is not None and value >= moment,
    "before": lambda moment, row: (value := row[0].values["taken_at"]) is not None and value < moment,
    "camera": lambda words, row: any(small(word) in small(row[0].values["camera"] or "") for word in words),
    "near": lambda place, row: (far := distance(row, place)) is not None and far <= place[2],
    "min_width": lambda least, row: (row[0].values["width"] or 0) >= least,
    "min_height": lambda least, row: (row[0].values["height"] or 0) >= least,
    "orientation": lambda name, row: shape(row) == name,
    "format": lambda names, row: row[0].values["format"] in [{"jpg": "jpeg"}.get(n.lower(), n.lower()) for n in names],
    "tags": lambda names, row: {small(name) for name in names} <= {small(name) for name in row[0].tags},
    "has": lambda names, row: all(has(name, row) for name in names),
}


def below(place: str | None, folder: str) -> bool:
    return place is not None and (folder == "/" or place.startswith(folder + "/"))


def has(name: str, row: Row) -> bool:
    values = row[0].values
    return {
        "caption": bool(row[0].captions),
        "gps": values["latitude"] is not None and values["longitude"] is not None,
        "date": values["taken_at"] is not None,
        "tag": bool(row[0].tags),
        "text": bool(row[0].inside),
    }[name]


def unit(latitude: float, longitude: float) -> tuple[float, float, float]:
    up, aside = math.radians(latitude), math.radians(longitude)
    return math.cos(up) * math.cos(aside), math.cos(up) * math.sin(aside), math.sin(up)


def distance(row: Row, place: tuple[float, float, float]) -> float | None:
    """Along the great circle: through the straight line between two points of the sphere."""
    here = row[0].values["latitude"], row[0].values["longitude"]
    if None in here:
        return None
    return 2 * 6371.0088 * math.asin(min(1.0, math.dist(unit(*here), unit(*place[:2])) / 2))


PLACES = [
    (latitude, longitude, reach)
    for latitude in (-90.0, -89.0, 0.0, 48.1, 89.9)
    for longitude in (-180.0, -179.99, 0.0, 11.5, 179.0)
    for reach in (0.5, 11.3, 25.0, 6000.0, 10100.0, 19000.0, 30000.0)
]
FOLDERS = ("/", "/pics", "/pics/a", "/pics2/", "/a_b", "/a_b/c%", "/pics/100%", "/caf\udce9", "/no")
VALUES: dict[str, list[Any]] = {
    "inside": [*((Path(one),) for one in FOLDERS), (Path("/pics2"), Path("/pics/a"))],
    "after": list(MOMENTS[1:]),
    "before": list(MOMENTS[1:]),
    "camera": [("canon",), ("nikon", "EOS"), ("_%",), ("é",), ("\\",), ("%",)],
    "near": PLACES,
    "min_width": [10, 11, 1920],
    "min_height": [10, 1080],
    "orientation": ["landscape", "portrait", "square"],
    "format": [("JPG",), ("png", "gif")],
    "tags": [("dog",), ("DOG", "cat"), ("50%",), ("été",)],
    "has": [("caption",), ("gps",), ("date",), ("tag",), ("text",), ("gps", "text")],
}


def means(chosen: dict[str, Any]) -> Callable[[Row], bool]:
    plain = chosen | {"inside": [str(path) for path in chosen.get("inside", ())]}
    return lambda row: all(HOLDS[name](plain[name], row) for name in chosen)


def test_every_filter(catalog: Catalog) -> None:
    world = varied_world()
    with holding(catalog, world) as connection:
        for name, values in VALUES.items():
            found = []
            for value in values:
                node = Filters(**{name: value}).tree()
                assert node is not None
                found.append(expected(world, means({name: value})))
                assert matching(connection, node) == found[-1], (name, value)
            assert min(map(len, found)) < 55 and any(found), name


filters = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


@SLOW
@given(world=worlds(), chosen=filters, one=st.none() | conditions)
def test_filters_choose_what_they_say(
    catalog: Catalog, world: list[Picture], chosen: dict[str, Any], one: Asked | None
) -> None:
    if chosen.get("after", datetime.min) >= chosen.get("before", datetime.max):
        with pytest.raises(UsageError, match="other way"):
            Filters(**chosen)
        return
    node = Filters(**chosen, where=None if one is None else one[0]).tree()
    if node is None:
        return
    named = means(chosen)
    with holding(catalog, world) as connection:
        wanted = expected(world, lambda row: named(row) and (one is None or one[1](row) is True))
        assert matching(connection, node) == wanted


degrees = st.floats(-90, 90) | st.sampled_from([-90.0, 90.0, 0.0])
around = st.floats(-180, 180) | st.sampled_from([-180.0, 180.0, 179.9999])


@settings(deadline=None, max_examples=300)
@given(here=st.tuples(degrees, around), there=st.tuples(degrees, around), share=st.floats(0, 2))
def test_the_box_holds_the_circle(here: tuple[float, float], there: tuple[float, float], share: float) -> None:
    far = where.great_circle_km(*there, *here)
    assert far is not None
    assert far == pytest.approx(2 * 6371.0088 * math.asin(min(1.0, math.dist(unit(*here), unit(*there)) / 2)), abs=2e-4)
    reach = max(far * share, 1e-3)
    south, north, west, east = where.bounding_box(*here, reach)
    inside = south <= there[0] <= north and (
        west <= there[1] <= east if west <= east else there[1] >= west or there[1] <= east
    )
    assert inside or far > reach


def test_distances_worked_out_by_hand() -> None:
    assert where.great_circle_km(0.0, 179.5, 0.0, -179.5) == pytest.approx(111.195, abs=0.001)  # one degree
    assert where.great_circle_km(60.0, 0.0, 60.0, 180.0) == pytest.approx(math.pi / 3 * 6371.0088)  # over the pole
    assert where.great_circle_km(90.0, 0.0, -90.0, 77.0) == pytest.approx(math.pi * 6371.0088)
    assert where.great_circle_km(None, 1.0, 2.0, 3.0) is None


# --- what goes into SQL -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["'; DROP TABLE image; --", '" OR 1=1 --', ":name ?1 %s", "\ud800", "a\nb"])
def test_users_texts_are_parameters(catalog: Catalog, text: str) -> None:
    expression = " or ".join(
        f"{name} = {quoted(text, chr(39))}" for name in ("camera", "tag", "caption", "name", "path")
    )
    node = parse(f"{expression} or lens like {quoted(text, chr(34))}")
    assert text not in str(where.condition(node))
    assert Filters(camera=(text,), tags=(text,)).tree()
    world = [Picture(1, {"camera": text.replace("\ud800", "?")}, [], [], None, [(b"/pics", b"1.jpg", "ok")])]
    with holding(catalog, world) as connection:
        assert len(matching(connection, node)) == ("\ud800" not in text)
        assert matching(connection, Filters(camera=("no" + text,)).tree()) == set()  # type: ignore[arg-type]


def test_the_largest_filters_are_no_strain_on_sqlite(catalog: Catalog) -> None:
    deep = "width > 1"
    for number in range(9):  # each round nests three deep
        deep = f"not (height > {number} and (tag like 'x' or {deep}))"
    flat = " and ".join(["width != 1"] * 181)
    hundred = tuple(f"word {number}" for number in range(100))
    folders = tuple(Path("/", *["x"] * 8, str(number)) for number in range(100))
    every = Filters(inside=folders, camera=hundred, tags=hundred, where=f"{flat} and ({deep})").tree()
    values = parse(f"id in ({','.join(['1'] * 4900)})")
    dates = parse(f"date in ({','.join(['2024'] * 200)})")
    assert every is not None
    with holding(catalog, [Picture(1, {}, [], [], None, [(b"/pics", b"1.jpg", "ok")])]) as connection:
        assert [len(matching(connection, one)) for one in (every, values, dates)] == [0, 1, 0]


def test_both_kinds_of_connections_know_the_functions(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "c", create=True)
    node = Filters(near=(1, 2, 3), where="name = 'x' and folder = 'y'").tree()
    assert node is not None
    with catalog.writing() as connection:
        assert matching(connection, node) == set()
    with catalog.reading() as connection:
        assert matching(connection, node) == set()
    catalog.close()


def test_a_range_of_dates_is_found_through_its_index(catalog: Catalog) -> None:
    node = Filters(after=datetime(2024, 1, 1), before=datetime(2024, 2, 1)).tree()
    assert node is not None
    with catalog.reading() as connection:
        compiled = select(image.c.id).where(where.condition(node)).compile(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", tuple(map(str, compiled.params.values())))
        assert "ix_image_taken_at" in str(plan.all())


# --- typos --------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(catalog: Catalog) -> Iterator[Connection]:
    world = [
        Picture(1, {}, ["cat", "50%"], [], None, [(b"/pics", b"a/1.jpg", "missing"), (b"", b"key/2", "ok")]),
        Picture(2, {}, ["big dog"], [], None, [(b"/a_b/c%", b"1.jpg", "ok")]),
    ]
    with holding(catalog, world) as connection:
        yield connection


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(tags=("cta",)), "No picture has the tag 'cta'; did you mean cat?"),
        (Filters(tags=("CAT", "Dog")), "No picture has the tag 'Dog'; did you mean big dog?"),  # known, but not given
        (
            Filters(where="width > 1 or tag in ('cat', 'xyz')"),
            "No picture has the tag 'xyz'; there are: 50%, big dog, cat.",
        ),
        (
            Filters(inside=(Path("/pics/b"),)),
            "The collection knows no picture in /pics/b; it has those of: /pics, /pics2, /, /a_b/c%. ",
        ),
        (Filters(inside=(Path("/pics/a"), Path("/elsewhere"))), "The collection knows no picture in /elsewhere; "),
        (Filters(inside=(Path("/pic"),)), "The collection knows no picture in /pic; "),
        (Filters(inside=(Path("/key"),)), "The collection knows no picture in /key; "),
    ],
)
def test_typos_do_not_look_like_nothing_found(known: Connection, filters: Filters, message: str) -> None:
    node = filters.tree()
    assert node is not None
    with pytest.raises(UsageError) as caught:
        where.check(known, node)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(tags=("CAT", "Big Dog", "50%")),
        Filters(inside=(Path("/pics"), Path("/pics/a"), Path("/"), Path("/a_b"))),
        Filters(where="not tag = 'nobody has it' and tag != 'nor this' and tag not in ('x') and tag like 'y%'"),
        Filters(where="camera = 'unknown' or name = 'unknown'"),
    ],
)
def test_what_may_well_be(known: Connection, filters: Filters) -> None:
    node = filters.tree()
    assert node is not None
    where.check(known, node)


def test_typos_in_an_empty_collection(catalog: Catalog) -> None:
    with catalog.reading() as connection:
        for filters, message in (
            (Filters(tags=("cat",)), "none has any tag yet. `mmsearch tag` gives them some"),
            (Filters(inside=(Path("/pics"),)), "it has no folders yet. `mmsearch index FOLDER` adds more"),
        ):
            node = filters.tree()
            assert node is not None
            with pytest.raises(UsageError, match=message):
                where.check(connection, node)


def test_the_functions_by_themselves() -> None:
    plain = sqlite3.connect(":memory:")
    where.register(plain)
    row = plain.execute(
        "SELECT file_name(x'612f622f63'), folder_name(x'612f622f63'), file_name(x'61'), folder_name(x'61')"
    )
    assert row.fetchone() == (b"c", b"a/b", b"a", b"")
    plain.close()


def test_taken_at_is_compared_as_it_is_stored(catalog: Catalog) -> None:
    """To the microsecond, on both sides of a second."""
    moment = datetime(2024, 5, 1, 14, 30, 15)
    world = [
        Picture(number, {"taken_at": moment + timedelta(microseconds=offset)}, [], [], None, [(b"/pics", name, "ok")])
        for number, (offset, name) in enumerate([(-1, b"1"), (0, b"2"), (999_999, b"3"), (1_000_000, b"4")], 1)
    ]
    with holding(catalog, world) as connection:
        assert {row[0] for row in matching(connection, parse("date = '2024-05-01 14:30:15'"))} == {2, 3}
