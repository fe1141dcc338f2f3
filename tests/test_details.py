"""What an engine says about one image, and how many satisfy filters."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from mmsearch import Engine, Filters
from mmsearch.errors import UsageError
from mmsearch.types import GivenTag, SourcedCaption
from tests.conftest import paint


def test_an_image_with_all_that_is_known(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    paint(folder / "red.png", "red", size=(40, 30))
    (folder / "red.txt").write_text("a red field\nseen from above")
    (folder / "copy.png").write_bytes((folder / "red.png").read_bytes())
    engine.index(folder)
    image = engine.search("red").hits[0].id
    engine.add_tags([image], ["field"])

    found = engine.image(image)

    assert found is not None
    assert (found.width, found.height, found.format) == (40, 30, "png")
    assert [(one.path, one.present) for one in found.files] == [
        (folder / "copy.png", True),
        (folder / "red.png", True),
    ]
    assert {one.size_bytes for one in found.files} == {(folder / "red.png").stat().st_size}
    assert found.captions == tuple(SourcedCaption(one, "sidecar") for one in ("a red field", "seen from above"))
    assert found.tags == (GivenTag("field", "person", None),)
    assert (found.text, found.key, found.taken_at) == (None, None, None)


def test_files_that_are_gone_come_last(engine: Engine, images: Path) -> None:
    (images / "a copy.png").write_bytes((images / "red.png").read_bytes())
    engine.index(images)
    (images / "a copy.png").unlink()
    engine.index(images)
    found = engine.image(next(hit.id for hit in engine.search("red") if hit.path == images / "red.png"))
    assert found is not None
    assert [(one.relative.name, one.present) for one in found.files] == [("red.png", True), ("a copy.png", False)]


def test_an_image_by_key_alone(engine: Engine) -> None:
    metadata = {"camera": "Box", "taken_at": datetime(2024, 5, 1, 12), "latitude": 48.1, "longitude": 11.5}
    image = engine.add("shop/1", Image.new("RGB", (50, 20), "red"), metadata)
    found = engine.image(image)
    assert found is not None
    assert (found.key, found.files, found.camera, found.latitude) == ("shop/1", (), "Box", 48.1)
    assert (found.width, found.height, found.taken_at) == (50, 20, datetime(2024, 5, 1, 12))


def test_an_id_that_is_not_known(engine: Engine, images: Path) -> None:
    engine.index(images)
    assert engine.image(9999) is None


def test_counts_follow_filters_and_the_collection(engine: Engine, images: Path) -> None:
    engine.index(images)
    assert engine.count() == 10
    assert engine.count(Filters(inside=(images / "more",))) == 2
    assert engine.count(Filters(format=("webp",))) == 1
    (images / "again.png").write_bytes((images / "red.png").read_bytes())  # one content is one image
    paint(images / "more" / "blue.png", "blue", 7)
    engine.index(images)
    assert engine.count() == 11
    assert engine.count(Filters(inside=(images / "more",))) == 3
    with pytest.raises(UsageError, match="has the tag 'nowhere'"):
        engine.count(Filters(tags=("nowhere",)))


def test_hits_know_their_size(engine: Engine, tmp_path: Path) -> None:
    paint(tmp_path / "images" / "red.png", "red", size=(48, 20))
    engine.index(tmp_path / "images")
    hit = engine.search("red").hits[0]
    assert (hit.width, hit.height) == (48, 20)
