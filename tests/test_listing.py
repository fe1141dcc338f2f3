"""Lists without a search: filters and an order alone, page by page, in the same order as all at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from mmsearch import Engine, Filters, Query
from mmsearch.errors import UsageError
from tests.conftest import paint

ADDED = ("red", "green", "blue")


@pytest.fixture
def filled(engine: Engine, images: Path) -> Engine:
    paint(images / "Zebra.png", "green", 7)
    paint(images / "more" / "again.png", "blue")  # the same content as blue.png
    paint(images / "zoo" / "blue.png", "blue", 3)  # another content of that name
    engine.index(images)
    for number, colour in enumerate(ADDED):
        file = paint(images.parent / "aside" / f"{colour}.png", colour, 20 + number)
        engine.add(f"Key {number}", file.read_bytes(), {"taken_at": datetime(2020 + number % 2, 1, 1)})
    return engine


def named(engine: Engine, query: Query) -> list[str]:
    return [hit.path.name if hit.path else str(hit.key) for hit in engine.search(query)]


def test_by_name_is_the_order_of_file_names_capitals_aside(filled: Engine) -> None:
    names = named(filled, Query(sort="name", k=100))
    assert names == sorted(names, key=str.casefold)
    assert len(names) == filled.status().images
    assert {"Zebra.png", "Key 0", "red two.webp"} <= set(names)


def test_by_date_is_the_newest_first_and_what_has_none_last(filled: Engine) -> None:
    dates = [hit.taken_at for hit in filled.search(Query(sort="date", k=100))]
    assert dates[:3] == [datetime(2021, 1, 1), datetime(2020, 1, 1), datetime(2020, 1, 1)]
    assert dates[3:] == [None] * (filled.status().images - 3)


@pytest.mark.parametrize("query", [{"sort": "name"}, {"sort": "date"}, {"filters": Filters(min_width=1)}])
def test_pages_together_are_the_whole_list(filled: Engine, query: dict[str, object]) -> None:
    ask: Callable[..., Query] = lambda **more: Query(**query, **more)  # noqa: E731
    whole = [(hit.rank, hit.id) for hit in filled.search(ask(k=100))]
    assert [rank for rank, _ in whole] == list(range(1, len(whole) + 1))
    pages = [(hit.rank, hit.id) for start in range(0, 20, 4) for hit in filled.search(ask(k=4, offset=start))]
    assert pages == whole
    assert not filled.search(ask(k=4, offset=100))


def test_filters_choose_the_file_that_gives_the_name(filled: Engine, images: Path) -> None:
    only = Query(sort="name", k=100, filters=Filters(inside=(images / "more",)))
    assert named(filled, only) == ["again.png", "red one.jpg", "red two.webp"]


def test_folding_goes_on_as_the_list_does(filled: Engine) -> None:
    whole = [hit.id for hit in filled.search(Query(sort="name", k=100))]
    folded = [hit.id for hit in filled.search(Query(sort="name", k=100, unique=True))]
    assert folded == [one for one in whole if one in folded]


def test_a_change_shows_at_once(filled: Engine, images: Path) -> None:
    before = named(filled, Query(sort="name", k=100))
    paint(images / "a new one.png", "purple", 5)
    filled.index(images)
    assert named(filled, Query(sort="name", k=100)) == ["a new one.png", *before]


def test_a_list_has_no_probabilities_to_ask_for(filled: Engine) -> None:
    with pytest.raises(UsageError, match="not known"):
        filled.search(Query(sort="name", min_probability=0.5))
