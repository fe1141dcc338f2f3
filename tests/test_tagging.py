"""Tags by zero-shot classification and by people; a picture in words; through the engine and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
import pytest

import mmsearch
from mmsearch import Engine, describing, tagging, views
from mmsearch.catalog import read, tags
from mmsearch.cli.main import main
from mmsearch.errors import ModelError, UsageError
from mmsearch.labels import read_labels
from mmsearch.relevance import Calibration, Scale
from mmsearch.types import CalibrationKind, Progress
from tests.conftest import paint
from tests.toy import COLOURS, ToyEncoder

ASKED: list[tuple[Any, Any]] = []  # label vectors and the best hits that came with them


class Middle(Calibration):
    """Even odds at a cosine of 0.9, whatever asks."""

    kind: CalibrationKind = "collection"

    def __init__(self) -> None:
        pass

    def scale(self, query: Any, direction: str, best: Any = None, among: int = 1000) -> Scale:
        if best is not None:
            ASKED.append((query, best))
        return Scale(40.0, -36.0)

    def spread(self, modality: Literal["texts", "pictures"]) -> float:
        return 1.0


@pytest.fixture(autouse=True)
def _calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (views, describing):
        monkeypatch.setattr(module, "calibration_for", lambda _encoder, _stored: Middle())


@pytest.fixture
def indexed(engine: Engine, images: Path) -> Engine:
    engine.index(images)
    return engine


def given(engine: Engine) -> set[tuple[str, str, str]]:
    """(file name, tag, who gave it), straight from the tables."""
    query = """SELECT file.relative, tag.name, image_tag.source FROM image_tag JOIN tag ON tag.id = image_tag.tag
               JOIN file ON file.image = image_tag.image WHERE file.status = 'ok'"""
    with engine._catalog.reading() as connection:
        return {(os.path.basename(r[0]).decode(), r[1], r[2]) for r in connection.exec_driver_sql(query)}


def expected(engine: Engine, toy: ToyEncoder, names: Sequence[str], least: float) -> set[tuple[str, str, str]]:
    """The same decided by plain loops over stored vectors and single prompts."""
    found = set()
    with engine._catalog.reading() as connection:
        space = read.spaces(connection)[0]
        for image in tags.present_images(connection):
            (place,) = read.present_files(connection, [image])[image]
            row = np.frombuffer(
                connection.exec_driver_sql(
                    "SELECT data FROM vector WHERE kind = 'images' AND space = ? AND owner = ?", (space.id, image)
                ).scalar_one(),
                "<f2",
            ).astype(float)
            for label in read_labels(names):
                mean = sum(toy.encode_texts([prompt])[0].astype(float) for prompt in label.prompts)
                cosine = row @ mean / np.linalg.norm(row) / np.linalg.norm(mean)
                if 1 / (1 + np.exp(36 - 40 * cosine)) >= least:
                    found.add((os.path.basename(place[1]).decode(), label.name, "zero-shot"))
    return found


NAMES = ["red", "green thing", "blue", "black", "purple", "orange"]


# --- zero-shot ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0.2, 0.5, 0.9])
def test_each_label_is_decided_by_itself(indexed: Engine, toy: ToyEncoder, least: float) -> None:
    report = indexed.tag(NAMES, min_probability=least)
    assert given(indexed) == expected(indexed, toy, NAMES, least) != set()
    assert report.added == len(given(indexed))
    assert report.tagged == len({name for name, _, _ in given(indexed)})
    assert (report.images, report.labels, report.removed, report.left_out) == (10, 6, 0, 0)
    counts = {one.label: one.images for one in report.counts}
    assert counts == indexed.tags()
    red = next(one for one in report.counts if one.label == "red")
    assert len(red.examples) == min(3, red.images)
    assert {(path.name, "red", "zero-shot") for path in red.examples} <= given(indexed)


def test_a_second_run_writes_nothing_and_a_stricter_one_takes_away(indexed: Engine) -> None:
    first = indexed.tag(NAMES, min_probability=0.2)
    with indexed._catalog.reading() as connection:
        before = connection.exec_driver_sql("PRAGMA data_version").scalar()
        again = indexed.tag(NAMES, min_probability=0.2)
        assert (again.added, again.removed) == (0, 0)
        assert connection.exec_driver_sql("PRAGMA data_version").scalar() == before
    many = len(given(indexed))
    strict = indexed.tag(NAMES, min_probability=0.9)
    assert strict.added == 0
    assert strict.removed == many - len(given(indexed)) > 0
    assert first.added == many


def test_other_labels_and_other_pictures_keep_their_tags(indexed: Engine, images: Path) -> None:
    indexed.tag(["red"])
    reds = given(indexed)
    indexed.tag(["blue"])
    assert reds < given(indexed)
    before = given(indexed)
    report = indexed.tag(["red", "blue"], images=[images / "more"], min_probability=1.0)
    assert report.images == 2
    assert {one for one in before if not one[0].startswith("red ")} == given(indexed)


def test_what_a_person_gave_is_never_touched(indexed: Engine, images: Path) -> None:
    indexed.tag(["red"])
    assert indexed.add_tags([images / "red.png", images / "blue.png"], ["Red", "sunset"]) == 4
    assert ("red.png", "red", "person") in given(indexed)  # the spelling that is there already
    assert ("red.png", "red", "zero-shot") in given(indexed)
    indexed.tag(["red", "sunset"], min_probability=1.0)
    assert given(indexed) == {(name, tag, "person") for name in ("red.png", "blue.png") for tag in ("red", "sunset")}
    assert indexed.tags() == {"red": 2, "sunset": 2}


def test_a_dry_run_says_the_same_and_writes_nothing(indexed: Engine) -> None:
    indexed.tag(["green thing"])
    before = given(indexed)
    tried = indexed.tag(NAMES, dry_run=True)
    assert given(indexed) == before
    assert set(indexed.tags()) == {"green thing"}
    done = indexed.tag(NAMES)
    assert tried.counts == done.counts
    assert (tried.dry_run, tried.added, tried.tagged) == (True, done.added, done.tagged)


def test_files_are_shown_one_by_one_and_unknown_ones_only_tried(indexed: Engine, images: Path, tmp_path: Path) -> None:
    new = paint(tmp_path / "elsewhere" / "new.png", "blue", 7)
    tried = indexed.tag(NAMES, images=[images / "red.png", new], dry_run=True)
    labels = {one.path.name: [label.label for label in one.labels] for one in tried.pictures}
    assert labels["red.png"][0] == "red"
    assert labels["new.png"] == ["blue"]
    assert given(indexed) == set()
    with pytest.raises(UsageError, match=r"new\.png is not in this collection"):
        indexed.tag(NAMES, images=[new])
    with pytest.raises(UsageError, match="Cannot use"):
        (tmp_path / "broken.jpg").write_bytes(b"nothing")
        indexed.tag(NAMES, images=[tmp_path / "broken.jpg"], dry_run=True)


def test_paths_that_mean_nothing_are_named(indexed: Engine, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (images / "green.png").unlink()
    indexed.index()
    for wrong, why in (
        (tmp_path / "empty", "No picture of"),
        (tmp_path / "nowhere", "There is no file or folder"),
        (images / "bad.jpg", "could not be indexed"),
        (images / "green.png", "is gone"),
        (9999, "no image #9999"),
    ):
        with pytest.raises(UsageError, match=why):
            indexed.tag(NAMES, images=[wrong])
        with pytest.raises(UsageError, match=why):
            indexed.add_tags([wrong], ["x"])
    assert given(indexed) == set()


def test_a_folder_around_roots_a_link_and_an_id(indexed: Engine, images: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images / "more")
    assert indexed.tag(NAMES, images=[tmp_path], dry_run=True).images == 10
    assert indexed.tag(NAMES, images=[tmp_path / "link"], dry_run=True).images == 2
    hit = indexed.search("red", k=1)[0]
    assert indexed.add_tags([hit.id], "mine") == 1
    assert {name for name, tag, _ in given(indexed) if tag == "mine"} == {hit.path.name if hit.path else ""}
    inner = images / "more2"  # a sibling whose name begins alike
    paint(inner / "blue.png", "blue", 9)
    indexed.index()
    assert indexed.tag(NAMES, images=[images / "more"], dry_run=True).images == 2


def test_missing_and_edited_pictures(indexed: Engine, images: Path) -> None:
    indexed.tag(["red", "blue"])
    indexed.add_tags([images / "red.png", images / "blue.png"], ["kept"])
    (images / "blue.png").unlink()
    paint(images / "red.png", "green", 3)  # edited: what a person gave belongs to the place, what was seen does not
    indexed.index()
    assert indexed.tags()["kept"] == 1
    assert {one for one in given(indexed) if one[0] == "red.png"} == {("red.png", "kept", "person")}
    report = indexed.tag(["red", "blue"])
    assert report.images == 9
    indexed.index(prune=True)
    with indexed._catalog.reading() as connection:
        assert not connection.exec_driver_sql(
            "SELECT 1 FROM image_tag WHERE image NOT IN (SELECT id FROM image)"
        ).first()
    assert indexed.verify().sound


def test_images_without_a_vector_are_counted(indexed: Engine) -> None:
    with indexed._catalog.writing() as connection:
        connection.exec_driver_sql("DELETE FROM vector WHERE owner <= 3 AND kind = 'images'")
    report = indexed.tag(NAMES)
    assert (report.images, report.left_out) == (7, 3)


def test_labels_are_judged_by_their_best_hits_of_the_whole_collection(
    indexed: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagging, "IMAGES_PER_COMMIT", 3)
    monkeypatch.setattr(tagging, "HITS", 4)
    ASKED.clear()
    indexed.tag(NAMES, images=[images / "more"])
    with indexed._catalog.reading() as connection:
        data = connection.exec_driver_sql("SELECT data FROM vector WHERE kind = 'images'").scalars().all()
    rows = np.stack([np.frombuffer(one, "<f2") for one in data]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(ASKED) == len(NAMES)
    for query, best in ASKED:
        expected = rows[np.argsort(-(rows @ query))[:4]]
        np.testing.assert_allclose(best, expected, atol=1e-5)


def test_a_space_without_calibration_is_refused(indexed: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "calibration_for", lambda _encoder, _stored: None)
    with pytest.raises(ModelError, match="no calibration"):
        indexed.tag(NAMES)


def test_bad_arguments_and_an_empty_collection(indexed: Engine, tmp_path: Path, toy: ToyEncoder) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        indexed.tag(NAMES, min_probability=1.5)
    with (
        Engine.open(tmp_path / "none", model=toy) as empty,
        pytest.raises(UsageError, match="no pictures yet"),
    ):
        empty.tag(NAMES)


def test_progress_and_stopping(indexed: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagging, "IMAGES_PER_COMMIT", 3)
    stop = Event()
    seen: list[tuple[int, int]] = []

    def on_progress(progress: Progress) -> None:
        assert progress.stage in ("tagging", "comparing")
        if progress.total and progress.stage == "tagging":
            seen.append((progress.done, progress.total))
            if progress.done == 6:
                stop.set()

    report = indexed.tag(NAMES, on_progress=on_progress, cancel=stop)
    assert seen == [(3, 10), (6, 10)]
    assert report.cancelled
    assert report.images == 6
    part = given(indexed)
    indexed.tag(NAMES)
    assert part < given(indexed)


def test_killed_and_started_again(images: Path, tmp_path: Path, toy: ToyEncoder, monkeypatch: Any) -> None:
    """SIGKILL between two of its transactions: the next run reaches the state of an undisturbed one."""
    for number in range(12):
        paint(images / "many" / f"{number}.png", list(COLOURS)[number % 8], 100 + number)
    with Engine.open(tmp_path / "c", model=toy) as engine:
        engine.index(images)
    shutil.copytree(tmp_path / "c", tmp_path / "undisturbed")
    program = f"""
import os, signal
from mmsearch import Engine, tagging, views
from tests.test_tagging import Middle, NAMES
from tests.toy import ToyEncoder
tagging.IMAGES_PER_COMMIT = 4
views.calibration_for = lambda encoder, stored: Middle()
def on_progress(progress):
    if progress.stage == "tagging" and progress.done >= 8:
        os.kill(os.getpid(), signal.SIGKILL)
with Engine.open({str(tmp_path / "c")!r}, model=ToyEncoder()) as engine:
    engine.tag(NAMES, on_progress=on_progress)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(mmsearch.__file__).parents[1], check=False)
    assert done.returncode == -9
    ends = []
    for name in ("c", "undisturbed"):
        with Engine.open(tmp_path / name, model=toy) as engine:
            before = len(given(engine))
            engine.tag(NAMES)
            ends.append((before, given(engine)))
    assert 0 < ends[0][0] < len(ends[0][1])
    assert ends[0][1] == ends[1][1]


def test_tags_are_words_of_the_picture(indexed: Engine, images: Path) -> None:
    indexed.add_tags([images / "green.png"], ["Lieblingsbild"])
    with indexed._catalog.reading() as connection:
        query = "SELECT rowid FROM image_fts WHERE image_fts MATCH 'tags: lieblingsbild'"
        (row,) = connection.exec_driver_sql(query).scalars().all()
        assert b"green.png" in read.present_files(connection, [row])[row][0][1]
    indexed.remove_tags([images / "green.png"], ["lieblingsbild"])
    with indexed._catalog.reading() as connection:
        assert not connection.exec_driver_sql(query).scalars().all()


# --- people -------------------------------------------------------------------------------------------------------


def test_people_give_and_take(indexed: Engine, images: Path) -> None:
    assert indexed.add_tags([images], ["all of them"]) == 10
    assert indexed.add_tags([images / "more", images / "red.png"], ["all of them", "nice"]) == 3
    assert indexed.tags() == {"all of them": 10, "nice": 3}
    assert indexed.remove_tags([images / "more"], ["all of them", "Nice"]) == 4
    assert indexed.tags() == {"all of them": 8, "nice": 1}
    with pytest.raises(UsageError, match="has the tag 'nicer'; did you mean nice"):
        indexed.remove_tags([images], ["nicer"])
    with pytest.raises(UsageError, match="not in this collection"):
        paint(images.parent / "new.png", "red")
        indexed.add_tags([images.parent / "new.png"], ["x"])
    for wrong in ("", "  ", "a\x00b", "x" * 101):
        with pytest.raises(UsageError, match="tag"):
            indexed.add_tags([images], [wrong])
    assert set(indexed.tags()) == {"all of them", "nice"}


def test_taking_away_takes_whoever_gave_it(indexed: Engine, images: Path) -> None:
    indexed.tag(["red"])
    indexed.add_tags([images / "red.png"], ["red"])
    assert indexed.remove_tags([images / "red.png"], ["red"]) == 1
    assert not any(name == "red.png" for name, _, _ in given(indexed))


# --- describe -----------------------------------------------------------------------------------------------------


def test_nearest_captions_and_labels(engine: Engine, images: Path, tmp_path: Path) -> None:
    for colour in ("red", "blue", "green"):
        (images / f"{colour}.txt").write_text(f"a {colour} picture\n")
    engine.index(images)
    new = paint(tmp_path / "new.png", "blue", 5)
    found = engine.describe(new, k=2, labels=NAMES)
    assert found.captions[0].caption == "a blue picture"
    assert len(found.captions) == len(found.labels) == 2
    assert found.labels[0].label == "blue"
    assert found.calibration == "collection"
    oracle = np.array([label.probability for label in engine.describe(new, k=99, labels=NAMES).labels])
    assert (np.diff(oracle) <= 0).all()
    assert len(oracle) == len(NAMES)
    by_id = engine.describe(engine.search("green", k=1)[0].id, labels=NAMES)
    assert (by_id.captions[0].caption, by_id.labels[0].label) == ("a green picture", "green thing")
    assert engine.describe(new.read_bytes(), k=2, labels=NAMES) == found
    for wrong in (9999, tmp_path / "nowhere.png"):
        with pytest.raises(UsageError):
            engine.describe(wrong, labels=NAMES)


def test_without_captions_or_a_collection_there_are_labels(engine: Engine, images: Path) -> None:
    none = engine.describe(images / "red.png", labels=NAMES)
    assert not (engine.folder / "catalog.sqlite").exists()
    assert (none.captions, none.labels[0].label) == ((), "red")
    engine.index(images)
    assert engine.describe(images / "red.png", labels=NAMES).captions == ()
    assert engine.describe(images / "red.png", labels=NAMES).labels == none.labels


# --- the command line, with the encoder that ships ----------------------------------------------------------------


DEMO = Path(mmsearch.__file__).parents[1] / "data" / "demo" / "images"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of some of the demo's pictures."""
    folder = tmp_path_factory.mktemp("tagging")
    (folder / "images").mkdir()
    for name in ("clip_080.jpg", "clip_081.jpg", "clip_060.jpg", "photo_coffee.jpg", "clip_012.jpg", "clip_003.jpg"):
        shutil.copy(DEMO / name, folder / "images")
    assert main(["index", str(folder / "images"), "-c", str(folder / "c")]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return (code, *capsys.readouterr())


def test_tag_on_the_command_line(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collection, labels = demo / "c", tmp_path / "labels.txt"
    labels.write_text("guitar\npenguin,a penguin on ice\n# no\ncar\n")
    code, out, _ = run(capsys, "tag", "--dry-run", "--labels", labels, "-c", collection, "--json")
    assert code == 0
    tried = json.loads(out)
    assert (tried["images"], tried["labels"], tried["dry_run"]) == (6, 3, True)
    assert run(capsys, "tag", "--list", "-c", collection)[0] == 1
    code, out, _ = run(capsys, "tag", "--labels", labels, "-c", collection, "--json")
    assert json.loads(out)["counts"] == tried["counts"]
    assert run(capsys, "tag", demo / "images" / "clip_060.jpg", "--add", "holiday", "-c", collection)[:2] == (
        0,
        "1 tag added, 0 removed\n",
    )
    listed = dict(line.split("\t") for line in run(capsys, "tag", "--list", "-c", collection)[1].splitlines())
    assert listed.pop("holiday") == "1"
    assert listed == {one["label"]: str(one["images"]) for one in tried["counts"]}
    assert json.loads(run(capsys, "tag", "--list", "-c", collection, "--json")[1])["tags"]["holiday"] == 1
    code, out, _ = run(capsys, "tag", demo / "images" / "clip_080.jpg", "--labels", labels, "-c", collection)
    assert out.startswith(str(demo / "images" / "clip_080.jpg") + ": ")
    code, out, _ = run(capsys, "tag", "--labels", labels, "-c", collection)
    assert out.splitlines()[-1].endswith("3 labels at 50% (lite)")
    assert (
        run(capsys, "tag", demo / "images", "--remove", "holiday", "-c", collection)[1] == "0 tags added, 1 removed\n"
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--list", "--dry-run"], "--list goes alone"),
        (["--add", "x"], "need a PATH"),
        (["IMAGES", "--add", "x", "--dry-run"], "by hand"),
        (["IMAGES", "--remove", "nothing of the kind"], "has the tag"),
        (["IMAGES", "--add", " "], "must not be empty"),
        (["/nowhere/at/all.jpg"], "no file or folder"),
        (["#x"], "no image"),
        (["#999"], "no image #999"),
        (["--min-probability", "2"], "2"),
        (["--labels", "LABELS"], "line 2"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], why: str, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("cat\n,x\n")
    known = {"IMAGES": str(demo / "images"), "LABELS": str(tmp_path / "labels.txt")}
    code, out, err = run(capsys, "tag", "-c", demo / "c", *(known.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert why in err


def test_describe_on_the_command_line(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("guitar\npenguin\ncar\ncup of coffee\n")
    code, out, _ = run(capsys, "describe", DEMO / "clip_080.jpg", "--labels", labels, "-c", demo / "c", "-k", 2)
    assert code == 0
    assert [line.split(maxsplit=1)[-1] for line in out.splitlines()][:2] == ["Labels", "guitar"]
    code, out, _ = run(
        capsys, "describe", DEMO / "photo_coffee.jpg", "#1", "--labels", labels, "-c", demo / "c", "--json"
    )
    (first, second) = json.loads(out)["pictures"]
    assert first["labels"][0]["label"] == "cup of coffee"
    assert second["picture"] == "#1"
    # no collection at all
    code, out, err = run(capsys, "describe", DEMO / "clip_060.jpg", "--labels", labels)
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[-1] == "penguin"
    assert run(capsys, "describe", DEMO / "clip_060.jpg", "-c", tmp_path / "none")[0] == 4
    assert not (tmp_path / "none").exists()
    code, _, err = run(capsys, "describe", tmp_path / "nothing.jpg", "--labels", labels, "-c", demo / "c")
    assert (code, err.count("\n")) == (2, 1)


def test_the_help_states_the_real_threshold() -> None:
    from mmsearch.cli import tag

    assert "Without it: 0.5." in Path(tag.__file__).read_text("utf-8")
    assert tagging.MIN_PROBABILITY == 0.5


def test_a_large_collection_is_tagged_in_blocks(tmp_path: Path, toy: ToyEncoder) -> None:
    """3,000 images known by key, in an encoder's own space: every decision is the same as by one product."""
    with Engine.open(tmp_path / "c", model=toy) as engine:
        rows = np.random.default_rng(5).normal(size=(3000, 13))
        engine.add_vectors([f"key {number:04}" for number in range(3000)], rows)
        started = time.perf_counter()
        report = engine.tag(list(COLOURS), min_probability=0.001)
        assert time.perf_counter() - started < 20
        assert report.images == 3000
        unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        wanted = {}
        for label in read_labels(list(COLOURS)):
            mean = np.mean(toy.encode_texts(label.prompts).astype(float), axis=0)
            likely = 1 / (1 + np.exp(36 - 40 * unit @ (mean / np.linalg.norm(mean))))
            wanted[label.name] = int((likely >= 0.001).sum())
        assert engine.tags() == {name: count for name, count in sorted(wanted.items()) if count}
        assert sum(wanted.values()) > 20
