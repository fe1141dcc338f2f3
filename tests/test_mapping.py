"""Maps: what is alike lies together, the same again each time; kept, damaged, grown, shrunk; words on them."""

from __future__ import annotations

import csv
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import Engine, Progress, mapping, projecting
from mmsearch.errors import SpaceNotFoundError
from mmsearch.labels import Label
from mmsearch.projecting import GRID, ROOM, landmarks, project
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder

tsne = pytest.mark.skipif(find_spec("openTSNE") is None, reason="needs the extra map (openTSNE)")
DEMO = Path(__file__).parents[1] / "data" / "demo"


def clusters(each: int, count: int = 3, dimension: int = 12) -> NDArray[np.float16]:
    """(each * count, dimension) unit rows about a few directions, one cluster after the other."""
    rng = np.random.default_rng(7)
    rows = np.repeat(np.eye(count, dimension), each, axis=0) + rng.normal(0, 0.12, (each * count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float16)


def projected(rows: NDArray[np.float16]) -> tuple[NDArray[np.float32], str]:
    found = project(rows, lambda done, total: None, Event())
    assert found is not None
    places, method = found
    assert places.shape == (len(rows), 2)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1
    return places, method


def own_kind(places: NDArray[np.float32], each: int) -> float:
    """How many have one of their own cluster as the nearest, as a share."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    mine = np.arange(len(places)) // each
    return float((mine[distances.argmin(axis=1)] == mine).mean())


@tsne
def test_what_is_alike_lies_together_and_again_in_the_same_place() -> None:
    rows = clusters(40)
    places, method = projected(rows)
    assert method == projecting.TSNE
    assert own_kind(places, 40) == 1
    assert np.ptp(places, axis=0).max() > 0.9  # the room is used
    assert np.array_equal(projected(rows)[0], places)


@tsne
def test_large_maps_go_through_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "FEW", 100)
    monkeypatch.setattr(projecting, "EARLY", 50)
    monkeypatch.setattr(projecting, "LATE", 50)
    monkeypatch.setattr(projecting, "ROWS_PER_SEARCH", 50)
    rows = clusters(40)
    places, _ = projected(rows)
    assert own_kind(places, 40) == 1
    assert np.array_equal(projected(rows)[0], places)


def test_without_the_extra_by_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "find_spec", lambda name: None)
    rows = clusters(40)
    places, method = projected(rows)
    assert method == projecting.PCA
    assert own_kind(places, 40) > 0.95
    assert np.array_equal(projected(rows)[0], places)


@pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 40])
def test_few_and_equal_rows_have_places(count: int) -> None:
    projected(clusters(count, 1))
    same, _ = projected(np.repeat(clusters(1, 1), count, axis=0))
    assert np.allclose(same, 0.5)


@tsne
def test_many_equal_rows_among_others() -> None:
    rows = np.concatenate([clusters(20), np.repeat(clusters(1, 1), 100, axis=0)])
    projected(rows)


def test_rows_of_one_dimension() -> None:
    places, _ = projected(np.array([[1], [-1], [1]], np.float16))
    assert np.array_equal(places[0], places[2])
    assert not np.array_equal(places[0], places[1])


@tsne
@pytest.mark.parametrize("after", [1, 5])
def test_it_can_be_cancelled(after: int) -> None:
    cancel, calls = Event(), []

    def report(done: int, total: int) -> None:
        assert 0 <= done <= total
        calls.append(done)
        if len(calls) == after:
            cancel.set()

    assert project(clusters(40), report, cancel) is None
    assert len(calls) <= after + 1
    assert calls == sorted(calls)


# --- landmarks ----------------------------------------------------------------------------------------------------


def test_words_stand_where_their_images_are_dense_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal((0.2, 0.5), 0.01, (50, 2)), rng.normal((0.8, 0.5), 0.01, (50, 2))
    places = np.concatenate([left, right]).astype(np.float32)
    everywhere, right_only = np.arange(0, 100, 2), np.arange(50, 100)
    found = {name: (x, y) for name, x, y in landmarks(places, [("photo", everywhere), ("beach", right_only)])}
    assert np.allclose(found["beach"], (0.8, 0.5), atol=0.02)
    # "photo" fits both sides; where the beach is, there is no room for it, and it is no nearer to the truth elsewhere
    assert set(found) in ({"beach"}, {"beach", "photo"})


def test_words_do_not_lie_upon_each_other_and_are_few() -> None:
    rng = np.random.default_rng(2)
    places = rng.random((3000, 2)).astype(np.float32)
    groups = [(f"word {n}", rng.choice(3000, 200, replace=False)) for n in range(200)]
    found = landmarks(places, groups)
    assert 5 < len(found) <= projecting.MOST_LANDMARKS
    for number, (_, x, y) in enumerate(found):
        for _, other_x, other_y in found[:number]:
            assert abs(x - other_x) >= ROOM[0] or abs(y - other_y) >= ROOM[1]


def test_words_at_the_edges() -> None:
    corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], np.float32)
    found = landmarks(corners, [(str(n), np.array([n])) for n in range(4)])
    assert {(name, x, y) for name, x, y in found} == {("0", 0, 0), ("1", 1, 1), ("2", 0, 1), ("3", 1, 0)}
    assert landmarks(np.empty((0, 2), np.float32), []) == []
    assert GRID * ROOM[1] > 1


# --- an engine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    """Three colours, ten of each, in folders of their names."""
    for colour in ("red", "green", "blue"):
        for seed in range(10):
            paint(tmp_path / "images" / colour / f"{seed}.png", colour, seed)
    engine.index(tmp_path / "images")
    return engine


def place(found: mapping.Map, image: int) -> NDArray[np.float64]:
    at = int(np.searchsorted(found.ids, image))
    assert found.ids[at] == image
    return np.array([found.x[at], found.y[at]], np.float64)


def middle(engine: Engine, found: mapping.Map, colour: str) -> NDArray[np.float64]:
    ids = [hit.id for hit in engine.search(colour, k=10)]
    return np.mean([place(found, one) for one in ids], axis=0)


def test_a_map_has_each_image_once_with_what_is_alike_together(filled: Engine) -> None:
    stages: list[Progress] = []
    found = filled.map(on_progress=stages.append)
    assert found is not None
    assert len(found) == 30
    assert found.ids.tolist() == sorted(hit.id for hit in filled.search("red", k=100))
    assert found.x.min() >= 0
    assert found.y.max() <= 1
    assert found.placed == 0
    centres = [middle(filled, found, colour) for colour in ("red", "green", "blue")]
    for number, colour in enumerate(("red", "green", "blue")):
        for hit in filled.search(colour, k=10):
            distances = [float(np.linalg.norm(place(found, hit.id) - other)) for other in centres]
            assert distances.index(min(distances)) == number
    assert {one.stage for one in stages} == {"mapping"}


def test_it_is_made_once_and_kept(filled: Engine, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled.map(build=False) is None
    made = filled.map()
    assert made is not None
    monkeypatch.setattr(mapping, "project", lambda *_: pytest.fail("made again"))
    assert filled.map() is made
    with Engine.open(filled.folder, model=toy, create=False) as other:
        kept = other.map(build=False)
    assert kept is not None
    for name in ("ids", "x", "y"):
        assert np.array_equal(getattr(kept, name), getattr(made, name))
    assert (kept.method, kept.labels) == (made.method, made.labels)


def test_another_engine_sees_a_map_that_is_made_anew(filled: Engine, toy: ToyEncoder, tmp_path: Path) -> None:
    first = filled.map()
    with Engine.open(filled.folder, model=toy) as other:
        for seed in range(20):
            paint(tmp_path / "images" / "white" / f"{seed}.png", "white", seed)
        other.index()
        assert filled.map(build=False) is None  # a tenth may change, not more
        again = other.map()
    found = filled.map(build=False)
    assert found is not None
    assert again is not None
    assert first is not None
    assert (len(first), len(found)) == (30, 50)
    assert np.array_equal(found.x, again.x)


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "text", "other"])
def test_a_damaged_file_is_as_good_as_none(filled: Engine, toy: ToyEncoder, damage: str) -> None:
    made = filled.map()
    assert made is not None
    path = next(filled.folder.glob("index/*/map.npz"))
    data = bytearray(path.read_bytes())
    if damage == "changed":
        data[len(data) // 2] ^= 255
    kept = {
        "cut": data[:-100],
        "changed": data,
        "emptied": b"",
        "text": b"map",
        "other": _other_space(path),
    }[damage]
    path.write_bytes(bytes(kept))
    with Engine.open(filled.folder, model=toy) as other:
        assert other.map(build=False) is None
        again = other.map()
        assert again is not None
        assert np.array_equal(again.x, made.x)
        assert other.map(build=False) is again


def _other_space(path: Path) -> bytes:
    """The file, with the fingerprint of other weights."""
    with np.load(path) as kept:
        parts: dict[str, Any] = dict(kept)
    header = parts["header"].tobytes().replace(b"fingerprint of toy", b"fingerprint of joy")
    assert b"joy" in header
    np.savez(path, **{**parts, "header": np.frombuffer(header, np.uint8)})
    return path.read_bytes()


@pytest.mark.parametrize("at_once", [4, 4096])
def test_new_images_stand_among_their_neighbours(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(mapping, "ROWS_AT_ONCE", at_once)
    before = filled.map()
    assert before is not None
    paint(tmp_path / "images" / "green" / "new.png", "green", 99)
    filled.index()
    found = filled.map()
    assert found is not None
    new = next(hit.id for hit in filled.search("green", k=11) if hit.id not in before.ids)
    assert (len(found), found.placed) == (31, 1)
    greens = [place(found, hit.id) for hit in filled.search("green", k=11) if hit.id != new]
    low, high = np.min(greens, axis=0), np.max(greens, axis=0)
    assert (low <= place(found, new)).all()
    assert (place(found, new) <= high).all()
    for one in before.ids.tolist():
        assert np.array_equal(place(found, one), place(before, one))


def test_images_that_are_gone_are_left_out(filled: Engine, tmp_path: Path) -> None:
    before = filled.map()
    assert before is not None
    gone = filled.search("red", k=1).hits[0]
    assert gone.path is not None
    gone.path.unlink()
    filled.index()
    found = filled.map(build=False)
    assert found is not None
    assert set(before.ids.tolist()) - set(found.ids.tolist()) == {gone.id}


def test_words_come_from_tags_and_without_from_folders(filled: Engine) -> None:
    found = filled.map()
    assert found is not None
    assert {label.text for label in found.labels} <= {"red", "green", "blue", "images"}
    assert len(found.labels) >= 3
    for label in found.labels:
        if label.text in COLOURS:
            assert np.linalg.norm(middle(filled, found, label.text) - (label.x, label.y)) < 0.3
    filled.add_tags([hit.id for hit in filled.search("blue", k=10)], ["sky"])
    tagged = filled.map()
    assert tagged is not None
    assert [label.text for label in tagged.labels] == ["sky"]
    assert np.array_equal(tagged.x, found.x)


def test_words_of_the_encoder_where_there_are_no_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [Label(name, (f"a photo of a {name}.",)) for name in ("car", "guitar", "submarine")]
    monkeypatch.setattr(mapping, "read_labels", lambda: labels)
    folder = tmp_path / "images"
    folder.mkdir()
    with (DEMO / "captions.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if re.search(r"\b(car|guitar|cat)\b", row["caption"]):
                shutil.copy(DEMO / "images" / Path(row["image"]).name, folder)
    with Engine.open(tmp_path / "c", model="lite") as engine:
        engine.index(folder)
        found = engine.map()
        assert found is not None
        words = {label.text for label in found.labels}
        assert "submarine" not in words
        assert words & {"car", "guitar"}


def test_a_collection_that_cannot_be_written_has_a_map_while_it_is_open(filled: Engine, toy: ToyEncoder) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    filled.close()
    places = [filled.folder, *(path for path in filled.folder.rglob("*") if path.is_dir())]
    for one in places:
        one.chmod(0o555)
    try:
        with Engine.open(filled.folder, model=toy, create=False) as reading:
            made = reading.map()
            assert made is not None
            again = reading.map(build=False)
            assert again is not None
            assert np.array_equal(again.x, made.x)
    finally:
        for one in places:
            one.chmod(0o755)
    assert not list(filled.folder.glob("index/*/map*"))


def test_a_disk_that_refuses_is_no_reason_to_have_none(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    made = filled.map()
    assert made is not None
    assert filled.map(build=False) is made
    assert not list(filled.folder.glob("index/*/map*"))


def test_cancelled_there_is_none_and_nothing_is_left(filled: Engine) -> None:
    cancel = Event()
    cancel.set()
    if find_spec("openTSNE"):
        assert filled.map(cancel=cancel) is None
        assert not list(filled.folder.glob("index/*/map*"))
    assert filled.map() is not None


def test_no_images_no_map(engine: Engine, images: Path) -> None:
    assert engine.map() is None
    engine.index(images)
    with Engine.open(engine.folder, model="lite") as other, pytest.raises(SpaceNotFoundError):
        other.map()


def test_index_runs_and_checks_leave_it_alone(filled: Engine, tmp_path: Path) -> None:
    made = filled.map()
    paint(tmp_path / "images" / "one more.png", "green", 55)
    filled.index()
    assert filled.verify().sound
    found = filled.map(build=False)
    assert found is not None
    assert made is not None
    assert len(found) == len(made) + 1


def test_images_of_an_applications_own_space(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "c") as engine:
        rows = clusters(10).astype(np.float32)
        engine.add_vectors([f"key {n}" for n in range(len(rows))], rows, space="mine")
    with Engine.open(tmp_path / "c", model="mine") as engine:
        found = engine.map()
        assert found is not None
        assert len(found) == 30
        assert found.labels == ()
