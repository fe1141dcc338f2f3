"""Facets against counting by hand: random catalogs and filters; then an engine with files, while things change."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from mmsearch import Engine, Filters, facets, roots
from mmsearch.catalog import tables
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import RootRow
from mmsearch.conditions import Node
from mmsearch.errors import UsageError
from mmsearch.filters import parse
from mmsearch.types import Count, Facets, FolderCount
from tests.conftest import paint
from tests.test_where import (
    SLOW,
    Asked,
    Picture,
    Row,
    below,
    catalog,
    conditions,
    holding,
    larger,
    place_of,
    varied_world,
    worlds,
)

__all__ = ["catalog"]  # a fixture


def counted(connection: Connection, filters: Node | None) -> Facets:
    """As `facets` does, in a transaction whose own changes nobody announces."""
    for name in ("columns", "folders", "facets"):
        connection.info.pop(name, None)
    return facets._count(connection, filters)


def by_hand(world: list[Picture], rows: list[Row]) -> dict[str, Any]:
    """rows: the present files that count."""
    chosen = {row[0].id: row[0] for row in rows}.values()
    inside: dict[str, set[int]] = {}
    for row in rows:
        folder = place_of(row)
        while folder is not None and folder != "/":  # everything lies below the root / of this world
            folder = os.path.dirname(folder)
            inside.setdefault(folder, set()).add(row[0].id)
    places = [one for one in chosen if None not in (one.values["latitude"], one.values["longitude"])]

    def values(name: str) -> Counter[str]:
        return Counter(one.values[name] for one in chosen if one.values[name] is not None)

    return {
        "total": len(chosen),
        "dates": Counter(f"{one.values['taken_at']:%Y-%m}" for one in chosen if one.values["taken_at"]),
        "folders": {folder: len(images) for folder, images in inside.items()},
        "cameras": values("camera"),
        "formats": values("format"),
        "tags": Counter(name for one in chosen for name in one.tags),
        "points": {(one.values["latitude"], one.values["longitude"], one.id) for one in places},
        "without": [sum(one.values[name] is None for one in chosen) for name in ("taken_at", "camera")],
    }


def as_plain(found: Facets) -> dict[str, Any]:
    def plain(counts: tuple[Count, ...]) -> dict[str, int]:
        assert len({one.name for one in counts}) == len(counts)
        return {one.name: one.count for one in counts}

    assert found.places == len(found.points) == found.total - found.without_place
    return {
        "total": found.total,
        "dates": plain(found.dates),
        "folders": {str(one.path): one.count for one in found.folders},
        "cameras": plain(found.cameras),
        "formats": plain(found.formats),
        "tags": plain(found.tags),
        "points": set(found.points),
        "without": [found.without_date, found.without_camera],
    }


def present(world: list[Picture]) -> list[Row]:
    return [(one, path, relative) for one in world for path, relative, status in one.files if status == "ok"]


@SLOW
@given(world=worlds(), one=st.none() | conditions | st.recursive(conditions, larger, max_leaves=5))
def test_like_counting_by_hand(catalog: Catalog, world: list[Picture], one: Asked | None) -> None:
    rows = [row for row in present(world) if one is None or one[1](row) is True]
    with holding(catalog, world) as connection:
        found = counted(connection, None if one is None else parse(one[0]))
    assert as_plain(found) == by_hand(world, rows)


def test_a_folder_counts_what_its_filter_would_leave(catalog: Catalog) -> None:
    world = varied_world()
    with holding(catalog, world) as connection:
        found = counted(connection, None)
        assert len(found.folders) > 15
        for one in found.folders:
            inside = counted(connection, Filters(inside=(one.path,)).tree())
            assert inside.total == one.count, one
            by_rows = {row[0].id for row in present(world) if below(place_of(row), str(one.path))}
            assert len(by_rows) == one.count


def test_orders(catalog: Catalog) -> None:
    with holding(catalog, varied_world()) as connection:
        found = counted(connection, None)
    assert [one.name for one in found.dates] == sorted(one.name for one in found.dates)
    for counts in (found.cameras, found.tags, found.formats):
        assert list(counts) == sorted(counts, key=lambda one: (-one.count, one.name))
        assert len(counts) > 1
    ways = [one.path.parts for one in found.folders]
    assert ways == sorted(ways)
    assert [one.depth for one in found.folders] == [len(way) - 1 for way in ways]


def test_many_places_are_thinned_out_evenly(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets, "MOST_POINTS", 5)
    values = {"width": 1, "height": 1, "latitude": 1.0, "longitude": 2.0, "taken_at": None, "camera": None}
    world = [Picture(n, {**values, "format": "png", "lens": None}, [], [], None) for n in range(1, 22)]
    for one in world:
        one.files.append((b"/pics", b"%d.png" % one.id, "ok"))
    with holding(catalog, world) as connection:
        found = counted(connection, None)
    assert found.places == 21
    assert [point[2] for point in found.points] == [1, 6, 11, 16, 21]


def test_roots_are_called_by_their_folders_names_where_these_differ() -> None:
    known = [RootRow(n, path, None) for n, path in enumerate((b"/a/pics", b"/b/pics", b"/b/scans/", b"/"), 1)]
    assert roots.names(known) == {1: "/a/pics", 2: "/b/pics", 3: "scans", 4: "/"}


# --- an engine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(engine: Engine, images: Path) -> Iterator[Engine]:
    engine.index(images)
    yield engine


def test_folders_are_labelled_from_their_root_on(filled: Engine, images: Path) -> None:
    paint(images / "more" / "deep" / "x.png", "blue", 5)
    filled.index(images / "more" / "deep")  # a part of the root
    found = filled.facets()
    assert found.folders == (
        FolderCount("images", images, 11, 0),
        FolderCount("images/more", images / "more", 3, 1),
        FolderCount("images/more/deep", images / "more" / "deep", 1, 2),
    )
    assert found.formats == (Count("png", 9), Count("jpeg", 1), Count("webp", 1))
    assert (found.total, found.places, found.without_camera) == (11, 0, 11)


def test_a_root_inside_another_one_is_part_of_its_tree(engine: Engine, images: Path) -> None:
    engine.index(images / "more")
    engine.index(images)
    assert [(one.label, one.count) for one in engine.facets().folders] == [("images", 10), ("images/more", 2)]


def test_changes_show_at_once_and_filters_are_those_of_a_search(filled: Engine, images: Path) -> None:
    assert filled.facets() is filled.facets()  # kept
    assert filled.facets().tags == ()
    reds = [hit.id for hit in filled.search("red", k=3)]
    filled.add_tags(reds, ["warm"])
    assert filled.facets().tags == (Count("warm", 3),)
    assert filled.facets(Filters(tags=("Warm",), format=("png",))).total == 1
    (images / "red.png").unlink()
    filled.index(images)
    assert filled.facets().total == 9
    assert filled.facets(Filters(tags=("warm",))).tags == (Count("warm", 2),)


def test_what_has_a_key_alone_counts_without_a_folder(filled: Engine, images: Path) -> None:
    picture = paint(images.parent / "x.png", "green", 9).read_bytes()
    filled.add("a key", picture, {"taken_at": datetime(2024, 5, 1), "latitude": 48.0, "longitude": 11.0})
    found = filled.facets()
    assert (found.total, found.folders[0].count) == (11, 10)
    assert found.dates == (Count("2024-05", 1),)
    assert [point[:2] for point in found.points] == [(48.0, 11.0)]
    assert filled.facets(Filters(has=("gps",))).folders == ()


def test_typos_are_errors_and_nothing_is_an_answer(engine: Engine, images: Path) -> None:
    assert engine.facets() == Facets(0, (), (), (), (), (), 0, (), 0, 0, 0)
    engine.index(images)
    with pytest.raises(UsageError, match="tag"):
        engine.facets(Filters(tags=("dgo",)))
    with pytest.raises(UsageError, match="no picture in"):
        engine.facets(Filters(inside=(images.parent / "elsewhere",)))
    assert engine.facets(Filters(min_width=10_000)).total == 0


def test_a_collection_that_cannot_be_written(filled: Engine, images: Path) -> None:
    folder = filled.folder
    filled.close()
    folder.chmod(0o555)
    try:
        with Engine.open(folder, create=False) as reading:
            assert reading.facets().total == 10
            assert reading.facets(Filters(format=("png",))).total == 8
    finally:
        folder.chmod(0o755)


def test_an_empty_tag_table_row_counts_for_nothing(filled: Engine) -> None:
    with Catalog(filled.folder, create=False).writing() as connection:
        connection.execute(insert(tables.tag).values(name="unused"))
    assert filled.facets().tags == ()
