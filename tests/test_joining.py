"""Joint vectors: what they are made of, when they are made anew, and that a query finds a picture through them."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine, Query, Term, joining
from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.joining import CAPTION_WEIGHT, joint_vector
from tests.conftest import paint
from tests.state import state
from tests.toy import ToyEncoder


def stored(folder: Path, kind: str = "joint") -> dict[str, np.ndarray]:
    """Name of the file, or text of the caption -> float16 row."""
    owner = {
        "images": "JOIN file ON file.image = owner",
        "joint": "JOIN file ON file.image = owner",
        "captions": "JOIN caption ON caption.id = owner",
    }[kind]
    what = "caption.text" if kind == "captions" else "file.relative"
    catalog = Catalog(folder, create=False)
    with catalog.reading() as connection:
        rows = connection.exec_driver_sql(f"SELECT {what}, data FROM vector {owner} WHERE kind = '{kind}'").all()
    catalog.close()
    return {(name.decode() if isinstance(name, bytes) else name): np.frombuffer(data, "<f2") for name, data in rows}


def by_hand(image: np.ndarray, captions: list[np.ndarray]) -> np.ndarray:
    said = sum(row.astype(float) for row in captions) / len(captions)
    said = said / np.sqrt((said**2).sum())
    joint = (1 - CAPTION_WEIGHT) * image.astype(float) + CAPTION_WEIGHT * said
    return joint / np.sqrt((joint**2).sum())


def test_a_joint_vector_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "CAPTION_WEIGHT", 0.25)
    captions = np.array([[0, 1, 0], [0, 0, 1]], np.float16)  # together: (0, 1, 1) / sqrt 2
    joint = joint_vector(np.array([1, 0, 0], np.float16), captions)
    np.testing.assert_allclose(joint, np.array([0.75, 0.25 / 2**0.5, 0.25 / 2**0.5]) / (0.75**2 + 0.25**2) ** 0.5, 1e-6)
    opposed = joint_vector(np.array([1, 0, 0], np.float16), np.array([[0, 1, 0], [0, -1, 0]], np.float16))
    np.testing.assert_allclose(opposed, [1, 0, 0])  # captions that contradict each other say nothing
    monkeypatch.setattr(joining, "CAPTION_WEIGHT", 0.5)
    np.testing.assert_allclose(joint_vector(np.array([1.0, 0]), np.array([[-1.0, 0]])), [1, 0])


def test_pictures_with_captions_get_one_in_the_run_that_finds_them(engine: Engine, images: Path) -> None:
    (images / "red.txt").write_text("a blue sky\na green field\n")
    engine.index(images)
    pictures, captions = stored(engine.folder, "images"), stored(engine.folder, "captions")
    assert stored(engine.folder).keys() == {"red.png"}
    expected = by_hand(pictures["red.png"], [captions["a blue sky"], captions["a green field"]])
    np.testing.assert_allclose(stored(engine.folder)["red.png"], expected, atol=1e-3)
    assert engine.verify().sound


def test_it_follows_its_captions_and_goes_with_its_image(engine: Engine, images: Path) -> None:
    sidecar = images / "red.txt"
    sidecar.write_text("a blue sky\n")
    engine.index(images)
    before = stored(engine.folder)["red.png"]
    sidecar.write_text("a green field\n")
    engine.index(images)
    captions = stored(engine.folder, "captions")
    assert captions.keys() == {"a green field"}
    now = stored(engine.folder)["red.png"]
    np.testing.assert_allclose(
        now, by_hand(stored(engine.folder, "images")["red.png"], [*captions.values()]), atol=1e-3
    )
    assert not np.array_equal(now, before)
    sidecar.unlink()
    engine.index(images)
    assert stored(engine.folder) == {}
    sidecar.write_text("a green field\n")
    engine.index(images)
    np.testing.assert_array_equal(stored(engine.folder)["red.png"], now)
    (images / "red.png").unlink()
    engine.index(images, prune=True)
    assert stored(engine.folder) == {}
    assert engine.verify().sound


def test_an_edited_picture_keeps_the_captions_of_its_table(engine: Engine, images: Path, tmp_path: Path) -> None:
    """They move to the new image when the run ends, and its joint vector must know of them."""
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\nred.png,a blue sky\n")
    (images / "red.txt").write_text("a green field\n")
    engine.index(images, captions=table)
    paint(images / "red.png", "yellow", 9)
    engine.index(images)
    captions = stored(engine.folder, "captions")
    assert captions.keys() == {"a blue sky", "a green field"}
    expected = by_hand(stored(engine.folder, "images")["red.png"], [*captions.values()])
    np.testing.assert_allclose(stored(engine.folder)["red.png"], expected, atol=1e-3)
    assert engine.verify().sound


def test_a_picture_is_found_through_its_caption_and_one_without_through_itself(engine: Engine, images: Path) -> None:
    (images / "red.txt").write_text("a blue sky\n")
    engine.index(images)

    def names(match: str, text: str) -> list[str]:
        hits = engine.search(Query((Term(text=text),), match=match, k=100))  # type: ignore[arg-type]
        return [hit.path.name for hit in hits if hit.path]

    assert sorted(names("joint", "blue")) == sorted(names("vectors", "blue"))  # each picture once
    assert names("joint", "blue").index("red.png") < names("vectors", "blue").index("red.png")
    assert names("joint", "blue")[0] == "blue.png"


def test_an_index_of_them_is_built_and_kept(engine: Engine, images: Path) -> None:
    for number, colour in enumerate(("red", "green", "blue")):
        (images / f"{colour}.txt").write_text(f"caption {number} of something yellow\n")
    engine.index(images)
    with Catalog(engine.folder, create=False).reading() as connection:
        space = read.spaces(connection)[0]
    name = space.generation("joint")
    assert name is not None
    assert (engine.folder / "index" / str(space.id) / name / "generation.json").exists()
    engine.index(images)
    assert (engine.folder / "index" / str(space.id) / name).exists()


def test_what_an_application_adds_has_one_at_once(engine: Engine) -> None:
    picture = Image.new("RGB", (20, 20), (220, 30, 30))
    engine.add("key", picture, {"caption": "a blue sky"})
    first = stored(engine.folder)["key"]
    captions = stored(engine.folder, "captions")
    np.testing.assert_allclose(first, by_hand(stored(engine.folder, "images")["key"], [*captions.values()]), atol=1e-3)
    engine.add("key", picture, {"caption": ["a blue sky", "a green field"]})
    assert not np.array_equal(stored(engine.folder)["key"], first)
    engine.add_vectors(["key"], np.eye(13)[:1])
    expected = by_hand(np.eye(13)[0], [*stored(engine.folder, "captions").values()])
    np.testing.assert_allclose(stored(engine.folder)["key"], expected, atol=1e-3)
    engine.remove(["key"])
    assert stored(engine.folder) == {}
    assert engine.verify().sound


def test_a_run_that_was_stopped_before_is_made_up_for(engine: Engine, images: Path, tmp_path: Path) -> None:
    (images / "red.txt").write_text("a blue sky\n")
    (images / "blue.txt").write_text("a red thing\n")
    engine.index(images)
    whole = state(engine.folder)
    catalog = Catalog(engine.folder, create=False)
    with catalog.writing() as connection:
        connection.exec_driver_sql("DELETE FROM vector WHERE kind = 'joint'")
    stopped = Event()
    stopped.set()
    joining.join(catalog, lambda _: None, stopped)
    assert stored(engine.folder) == {}
    catalog.close()
    engine.index(images)
    assert state(engine.folder) == whole
    with Engine.open(tmp_path / "fresh", model=ToyEncoder()) as fresh:
        fresh.index(images)
    assert state(tmp_path / "fresh")["vectors"] == whole["vectors"]


def test_a_lost_owner_is_noticed(engine: Engine, images: Path) -> None:
    engine.index(images)
    catalog = Catalog(engine.folder, create=False)
    with catalog.writing() as connection:
        connection.exec_driver_sql("INSERT INTO vector SELECT NULL, space, 'joint', 999, data, crc FROM vector LIMIT 1")
    catalog.close()
    assert any("1 vectors belong to nothing" in problem for problem in engine.verify().problems)
