"""The index run: what it counts, what it keeps, what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch import Engine, Limits, errors, files, indexing, roots
from mmsearch.captions import read_sidecar
from mmsearch.catalog.catalog import Catalog
from mmsearch.decode import decode
from mmsearch.types import IndexReport
from tests.conftest import paint
from tests.state import state
from tests.toy import COLOURS, ToyEncoder


def counts(report: IndexReport) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: getattr(report, name) for name in indexing.COUNTS if getattr(report, name)}


def vector_ids(engine: Engine) -> list[int]:
    with Catalog(engine.folder, create=False).reading() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT id FROM vector ORDER BY id")]


def test_a_first_run_finds_everything(engine: Engine, images: Path, found: Callable[..., list[str]]) -> None:
    report = engine.index(images)
    assert counts(report) == {"new": 10}
    assert report.space == "toy"
    assert found("red", 3) == sorted(found("red", 3), key=found("red", 3).index)
    assert set(found("red", 3)) == {"red.png", "red one.jpg", "red two.webp"}
    assert found("blue", 1) == ["blue.png"]
    assert len(found("anything")) == 10


def test_a_second_run_decodes_and_encodes_nothing(
    engine: Engine, images: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index(images)
    before = state(engine.folder)
    changes = (engine.folder / "catalog.sqlite").stat().st_size
    encoded = toy.pictures

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be read or decoded")

    monkeypatch.setattr(indexing, "decode", never)
    monkeypatch.setattr(files, "read", never)
    assert counts(engine.index(images)) == {"unchanged": 10}
    assert counts(engine.index()) == {"unchanged": 10}
    assert toy.pictures == encoded
    assert state(engine.folder) == before
    assert (engine.folder / "catalog.sqlite").stat().st_size == changes


def test_a_moved_file_keeps_its_vector(
    engine: Engine, images: Path, toy: ToyEncoder, found: Callable[..., list[str]]
) -> None:
    engine.index(images)
    ids, encoded = vector_ids(engine), toy.pictures
    (images / "deep").mkdir()
    (images / "blue.png").rename(images / "deep" / "sea.png")
    assert counts(engine.index(images)) == {"moved": 1, "unchanged": 9}
    assert (vector_ids(engine), toy.pictures) == (ids, encoded)
    assert found("blue", 1) == ["sea.png"]
    assert engine.status().missing == 0


def test_moving_the_whole_folder_encodes_nothing(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    (images / "broken.jpg").write_bytes(b"nothing")
    engine.index(images)
    ids, encoded = vector_ids(engine), toy.pictures
    there = images.with_name("elsewhere")
    images.rename(there)
    assert counts(engine.index(there)) == {"moved": 10, "failed": 1}
    assert (vector_ids(engine), toy.pictures) == (ids, encoded)
    assert [root.path for root in engine.status().roots] == [there]
    assert all(hit.path and hit.path.is_file() for hit in engine.search("red", k=20))


def test_a_root_that_moved_is_relocated_without_reading(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    engine.index(images)
    encoded = toy.pictures
    there = images.with_name("elsewhere")
    images.rename(there)
    assert engine.relocate(images, there) == 10
    assert counts(engine.index()) == {"unchanged": 10}
    assert toy.pictures == encoded
    with pytest.raises(errors.UsageError, match="is not a root"):
        engine.relocate(images, there)
    with pytest.raises(errors.UsageError, match="is not a folder"):
        engine.relocate(there, images)
    images.mkdir()
    with pytest.raises(errors.UsageError, match="None of the 10 pictures"):
        engine.relocate(there, images)


def test_equal_contents_are_encoded_once(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    for name in ("copy.png", "another copy.png", "zz.png"):
        shutil.copy(images / "green.png", images / name)
    assert counts(engine.index(images)) == {"new": 13}
    assert toy.pictures == 10
    best = engine.search("green", k=1).hits[0]
    assert [path.name for path in best.paths] == ["another copy.png", "copy.png", "green.png", "zz.png"]
    shutil.copy(images / "green.png", images / "later.png")
    assert counts(engine.index(images)) == {"new": 1, "unchanged": 13}
    assert toy.pictures == 10


def test_a_changed_file_gets_another_vector(engine: Engine, images: Path, found: Callable[..., list[str]]) -> None:
    (images.parent / "list.csv").write_text("image,caption\nblue.png,the sea\n")
    engine.index(images, captions=[images.parent / "list.csv"])
    paint(images / "blue.png", "green", 7)
    assert counts(engine.index(images)) == {"changed": 1, "unchanged": 9}
    assert set(found("green", 2)) == {"green.png", "blue.png"}
    held = state(engine.folder)
    assert len(held["images"]) == 10
    assert [row[2] for row in held["captions"]] == ["the sea"]  # given to the place, not to the old content
    assert engine.verify().sound


def test_a_touched_file_is_unchanged(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    engine.index(images)
    encoded = toy.pictures
    os.utime(images / "red.png")
    assert counts(engine.index(images)) == {"unchanged": 10}
    assert toy.pictures == encoded


def test_broken_files_cost_only_themselves(engine: Engine, images: Path, tmp_path: Path) -> None:
    whole = (images / "red.png").read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.jpg").write_bytes(b"")
    (images / "text.jpg").write_text("not a picture")
    (images / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (images / "notes.doc").write_text("not a picture either, and does not say so")
    shutil.copy(images / "blue.png", images / "blue.dat")
    (images / "wrong.jpg").write_bytes((images / "purple.png").read_bytes())
    report = engine.index(images)
    assert counts(report) == {"new": 12, "failed": 4}  # a picture is known by its first bytes, too
    assert {failed.path.name for failed in report.failures} == {"truncated.png", "empty.jpg", "text.jpg", "gone.jpg"}
    assert [failed.path.name for failed in engine.status().failed] == [
        "empty.jpg",
        "gone.jpg",
        "text.jpg",
        "truncated.png",
    ]
    assert all(failed.error and "\n" not in failed.error for failed in engine.status().failed)
    assert counts(engine.index(images)) == {"unchanged": 12, "failed": 4}
    paint(images / "truncated.png", "white", 3)
    assert counts(engine.index(images)) == {"changed": 1, "unchanged": 12, "failed": 3}
    (images / "text.jpg").unlink()
    assert counts(engine.index(images)) == {"unchanged": 13, "failed": 2}
    assert [failed.path.name for failed in engine.status().failed] == ["empty.jpg", "gone.jpg"]


def test_what_failed_is_tried_again_under_other_limits(tmp_path: Path, images: Path, toy: ToyEncoder) -> None:
    paint(images / "large.png", "white", size=(400, 300))
    small = Limits(max_megapixels=0.1)
    with Engine.open(tmp_path / "c", model=toy, limits=small) as engine:
        assert counts(engine.index(images)) == {"new": 10, "failed": 1}
        assert "0.1" in engine.status().failed[0].error
    with Engine.open(tmp_path / "c", model=toy) as engine:
        assert counts(engine.index(images)) == {"changed": 1, "unchanged": 10}


def test_what_could_not_be_read_is_tried_by_every_run(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = files.read

    def denied(path: Path, limit: float) -> Any:
        if path.name == "red.png":
            raise errors.PictureError("permission to read it is denied") from PermissionError(13, "denied")
        return read(path, limit)

    monkeypatch.setattr(files, "read", denied)
    assert counts(engine.index(images)) == {"new": 9, "failed": 1}
    monkeypatch.setattr(files, "read", read)
    assert counts(engine.index(images)) == {"changed": 1, "unchanged": 9}


def test_a_root_that_is_away_loses_nothing(engine: Engine, images: Path, found: Callable[..., list[str]]) -> None:
    engine.index(images)
    before = state(engine.folder)
    images.rename(images.with_name("unplugged"))
    for prune in (False, True):
        report = engine.index(prune=prune)
        assert counts(report) == {}
        assert report.left_alone[0][0] == images
    assert state(engine.folder) == before
    assert len(found("red")) == 10
    assert not engine.status().roots[0].present


def test_a_suddenly_empty_root_loses_nothing_unless_told(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index(images)
    before = state(engine.folder)
    shutil.rmtree(images)
    images.mkdir()
    report = engine.index(images)
    assert "suddenly empty" in report.left_alone[0][1]
    assert state(engine.folder) == before
    with monkeypatch.context() as patched:
        patched.setattr(roots, "device_of", lambda _: "another device")  # the mount point of a disk that is away
        report = engine.index(images, prune=True)
        assert "away" in report.left_alone[0][1]
        assert state(engine.folder) == before
    assert counts(engine.index(images, prune=True)) == {"removed": 10}
    held = state(engine.folder)
    assert not held["files"] and not held["images"] and not held["vectors"]


def test_missing_files_leave_results_and_keep_their_vectors(
    engine: Engine, images: Path, toy: ToyEncoder, found: Callable[..., list[str]]
) -> None:
    engine.index(images)
    encoded = toy.pictures
    (images / "red.png").rename(images.parent / "red.png")
    assert counts(engine.index(images)) == {"missing": 1, "unchanged": 9}
    assert counts(engine.index(images)) == {"unchanged": 9}
    assert "red.png" not in found("red") and len(found("red")) == 9
    assert len(state(engine.folder)["vectors"]) == 10
    (images.parent / "red.png").rename(images / "red.png")
    assert counts(engine.index(images)) == {"unchanged": 10}
    assert "red.png" in found("red", 3)
    assert toy.pictures == encoded
    (images / "red.png").unlink()
    assert counts(engine.index(images)) == {"missing": 1, "unchanged": 9}
    assert counts(engine.index(images, prune=True)) == {"removed": 1, "unchanged": 9}
    assert len(state(engine.folder)["vectors"]) == 9
    assert engine.verify().sound


def test_a_folder_that_cannot_be_looked_into_loses_nothing(engine: Engine, images: Path, tmp_path: Path) -> None:
    (images / "more").rename(tmp_path / "disk")
    (images / "more").symlink_to(tmp_path / "disk")
    assert counts(engine.index(images)) == {"new": 10}
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    report = engine.index(images, prune=True)
    assert counts(report) == {"unchanged": 8, "failed": 1}
    assert report.failures[0].path == images / "more"
    assert len(state(engine.folder)["vectors"]) == 10


def test_ignored_and_excluded_files(engine: Engine, images: Path) -> None:
    (images / ".mmsearchignore").write_text("more/\n")
    paint(images / ".hidden" / "x.png", "red")
    assert counts(engine.index(images, exclude=["b*.png"])) == {"new": 6}
    assert counts(engine.index(images)) == {"new": 2, "unchanged": 6}


def test_names_that_are_not_utf8(engine: Engine, images: Path, found: Callable[..., list[str]]) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.png")
    (images / "blue.png").rename(images / name)
    engine.index(images)
    assert found("blue", 1) == [name]
    assert engine.search("blue", k=1).hits[0].path == images / name
    assert counts(engine.index()) == {"unchanged": 10}


# --- roots --------------------------------------------------------------------------------------------------------


def test_folders_inside_and_around_roots(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    assert counts(engine.index(images / "more")) == {"new": 2}
    assert counts(engine.index([images, images / "more"])) == {"new": 8, "unchanged": 2}
    assert toy.pictures == 10
    assert [(root.path, root.files) for root in engine.status().roots] == [(images / "more", 2), (images, 8)]
    paint(images / "more" / "new.png", "black", 5)
    paint(images / "other.png", "black", 6)
    assert counts(engine.index(images / "more")) == {"new": 1, "unchanged": 2}
    shutil.rmtree(images / "more")
    report = engine.index(images, prune=True)
    assert counts(report) == {"new": 1, "unchanged": 8}
    assert report.left_alone[0][0] == images / "more"  # a root of its own, which may lie on another disk


def test_a_subfolder_of_a_root(engine: Engine, images: Path) -> None:
    engine.index(images)
    paint(images / "more" / "new.png", "black", 5)
    paint(images / "other.png", "black", 6)
    assert counts(engine.index(images / "more")) == {"new": 1, "unchanged": 2}
    shutil.rmtree(images / "more")
    assert counts(engine.index(images / "more")) == {"missing": 3}
    assert counts(engine.index()) == {"new": 1, "unchanged": 8}


def test_two_roots_and_removing_one(engine: Engine, images: Path, tmp_path: Path) -> None:
    paint(tmp_path / "second" / "a.png", "red", 9)
    shutil.copy(images / "blue.png", tmp_path / "second" / "blue.png")
    engine.index([images, tmp_path / "second"])
    assert len(engine.search("blue", k=1).hits[0].paths) == 2
    assert engine.remove_root(images) == 10
    assert {hit.path.name for hit in engine.search("x", k=99) if hit.path} == {"a.png", "blue.png"}
    assert len(state(engine.folder)["vectors"]) == 2
    assert engine.verify().sound


@pytest.mark.parametrize("name", ["nowhere", "images/red.png"])
def test_what_is_no_folder_is_refused(engine: Engine, images: Path, name: str) -> None:
    with pytest.raises(errors.UsageError, match="folder"):
        engine.index(images.parent / name)
    assert not engine.folder.exists()


def test_without_folders_there_must_be_roots(engine: Engine) -> None:
    with pytest.raises(errors.UsageError, match="no folders yet"):
        engine.index()


# --- captions -----------------------------------------------------------------------------------------------------


def captions_of(engine: Engine) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in state(engine.folder)["captions"]]


def test_sidecars_come_change_and_go(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    (images / "red.txt").write_text("a red wall\nseen from afar\n")
    assert counts(engine.index(images)) == {"new": 10, "captions": 2}
    assert engine.search("a red wall", find="captions", k=1).hits[0].caption == "a red wall"
    pictures = toy.pictures
    (images / "red.txt").write_text("a red wall\nin the sun\nand rain\n")
    assert counts(engine.index(images)) == {"unchanged": 10, "captions": 2}
    assert sorted(captions_of(engine)) == [
        ("sidecar", "a red wall"),
        ("sidecar", "and rain"),
        ("sidecar", "in the sun"),
    ]
    (images / "red.txt").unlink()
    assert counts(engine.index(images)) == {"unchanged": 10}
    assert captions_of(engine) == []
    assert toy.pictures == pictures
    assert len(state(engine.folder)["vectors"]) == 10


def test_sidecars_of_copies_add_up(engine: Engine, images: Path) -> None:
    shutil.copy(images / "red.png", images / "zopy.png")
    (images / "red.txt").write_text("one\n")
    (images / "zopy.txt").write_text("two\n")
    engine.index(images)
    assert sorted(captions_of(engine)) == [("sidecar", "one"), ("sidecar", "two")]
    (images / "zopy.txt").write_text("three\n")
    engine.index(images)
    assert sorted(captions_of(engine)) == [("sidecar", "one"), ("sidecar", "three")]


def test_a_sidecar_that_cannot_be_read_costs_only_itself(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "red.txt").write_text("a red wall")

    def denied(_: Path) -> list[str]:
        raise errors.PictureError("permission to read it is denied")

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "read_sidecar", denied)
        report = engine.index(images)
        assert counts(report) == {"new": 10}
        assert "red.png" in report.notices[0]
    assert counts(engine.index(images)) == {"unchanged": 10, "captions": 1}


def test_a_dead_link_below_which_nothing_was_known_is_nothing(engine: Engine, images: Path, tmp_path: Path) -> None:
    (images / "old disk").symlink_to(tmp_path / "nowhere")
    assert counts(engine.index(images)) == {"new": 10}


def test_tables_of_captions(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    table = images.parent / "list.csv"
    table.write_text(
        "image,caption\nred.png,one\nred.png,two\nred one.jpg,three\nmore/red two.webp,four\nnobody.png,five\n"
    )
    report = engine.index(images)
    assert captions_of(engine) == []  # only with --captions
    report = engine.index(images, captions=[table])
    assert counts(report) == {"unchanged": 10, "captions": 4}
    assert "nobody.png" in report.notices[0]
    assert sorted(text for _, text in captions_of(engine)) == ["four", "one", "three", "two"]
    texts = toy.texts
    assert counts(engine.index(images, captions=[table])) == {"unchanged": 10}
    assert toy.texts == texts
    table.write_text("image,caption\nred.png,two\nred.png,six\n")
    assert counts(engine.index(images, captions=[table])) == {"unchanged": 10, "captions": 1}
    assert sorted(text for _, text in captions_of(engine)) == ["four", "six", "three", "two"]


def test_metadata_reaches_the_catalog(engine: Engine, images: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x010E] = "Acme", "Acme One", "a yellow field"
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), COLOURS["yellow"]).save(images / "field.jpg", exif=exif)
    engine.index(images)
    row = next(row for row in state(engine.folder)["images"] if row[5] is not None)
    assert row[1:4] == (20, 40, "jpeg")
    assert row[5] == "Acme One"
    assert len(row[9]) == 32
    assert captions_of(engine) == [("embedded", "a yellow field")]


# --- interruption, failure ------------------------------------------------------------------------------------------


def test_a_cancelled_run_keeps_what_was_committed(engine: Engine, images: Path, tmp_path: Path) -> None:
    cancel = threading.Event()

    def stop(progress: Any) -> None:
        if progress.stage == "encoding":
            cancel.set()

    report = engine.index(images, on_progress=stop, cancel=cancel)
    assert report.cancelled
    done = len(state(engine.folder)["vectors"])
    assert 0 < done < 10
    assert len(engine.search("red", k=99)) == done
    report = engine.index(images)
    assert counts(report) == {"new": 10 - done, "unchanged": done}
    with Engine.open(tmp_path / "other", model=ToyEncoder()) as undisturbed:
        undisturbed.index(images)
        assert state(undisturbed.folder) == state(engine.folder)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(broken=st.sets(st.integers(0, 17)), copies=st.sets(st.integers(0, 17), max_size=6))
def test_every_vector_belongs_to_its_file(
    tmp_path_factory: pytest.TempPathFactory, broken: set[int], copies: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for number in range(18):
        path = folder / f"{number:02}.png"
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
        if number in copies:
            shutil.copy(path, folder / f"copy of {number:02}.png")
        if number in broken:
            path.write_bytes(path.read_bytes()[:60])
    toy = ToyEncoder()
    with Engine.open(folder / ".collection", model=toy) as engine:
        report = engine.index(folder)
        assert (report.failed, report.new) == (len(broken), 18 - len(broken) + len(copies))
        with Catalog(engine.folder, create=False).reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT relative, data FROM file JOIN vector ON owner = image WHERE status = 'ok' AND kind = 'images'"
            ).all()
        assert len(rows) == 18 - len(broken) + len(copies)
        for relative, data in rows:
            picture = decode((folder / os.fsdecode(relative)).read_bytes(), target=16, limits=Limits()).picture
            expected = toy.encode_images([toy.prepare(picture)])[0]
            assert np.frombuffer(data, "<f2").tolist() == expected.astype(np.float16).tolist()


def placed(engine: Engine) -> dict[str, str]:
    """file name -> sha256, of present files."""
    return {os.fsdecode(row[1]): str(row[7]).lower() for row in state(engine.folder)["files"] if row[5] == "ok"}


def on_disk(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
        if path.suffix != ".txt"
    }


def test_two_files_swap_their_names(engine: Engine, images: Path, toy: ToyEncoder, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,caption\nblue.png,the blue one\nred.png,the red one\n")
    engine.index(images, captions=[tmp_path / "list.csv"])
    encoded, before = toy.pictures, state(engine.folder)
    (images / "blue.png").rename(images / "x")
    (images / "red.png").rename(images / "blue.png")
    (images / "x").rename(images / "red.png")
    assert counts(engine.index(images)) == {"changed": 2, "unchanged": 8}
    assert placed(engine) == on_disk(images)
    after = state(engine.folder)
    assert (after["images"], after["vectors"], after["captions"]) == (
        before["images"],
        before["vectors"],
        before["captions"],
    )
    assert toy.pictures == encoded


def test_a_series_moves_up_by_one(engine: Engine, tmp_path: Path, toy: ToyEncoder) -> None:
    folder = tmp_path / "series"
    for number in range(1, 11):
        paint(folder / f"{number:02}.png", "red", number)
    engine.index(folder)
    for number in range(10, 0, -1):
        (folder / f"{number:02}.png").rename(folder / f"{number + 1:02}.png")
    paint(folder / "01.png", "blue")
    engine.index(folder)
    assert placed(engine) == on_disk(folder)
    assert toy.pictures == 11
    assert len(state(engine.folder)["images"]) == 11


def test_an_edited_file_whose_original_was_kept(engine: Engine, images: Path) -> None:
    engine.index(images)
    (images / "red.png").rename(images / "the original.png")
    paint(images / "red.png", "red", 77)
    engine.index(images)
    assert placed(engine) == on_disk(images)
    assert len(state(engine.folder)["images"]) == 11


def test_a_folder_does_not_take_over_a_key(engine: Engine, images: Path) -> None:
    engine.add("order-4711", (images / "red.png").read_bytes())
    assert counts(engine.index(images)) == {"new": 10}
    hit = next(hit for hit in engine.search("red", k=99) if hit.key)
    assert (hit.key, hit.path) == ("order-4711", images / "red.png")
    assert engine.remove(["order-4711"]) == 1


def test_a_copy_elsewhere_does_not_move_what_is_away(
    engine: Engine, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.index(images)
    shutil.copytree(images, tmp_path / "copy")
    shutil.rmtree(images)
    images.mkdir()  # the mount point
    real = roots.device_of
    monkeypatch.setattr(roots, "device_of", lambda path: "other" if os.fsdecode(path) == str(images) else real(path))
    assert counts(engine.index(tmp_path / "copy")) == {"new": 10}
    assert {len(hit.paths) for hit in engine.search("red", k=99)} == {2}


def test_another_disk_in_the_place_of_one(engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.index(images)
    before = state(engine.folder)
    shutil.rmtree(images)
    paint(images / "stranger.png", "white", 3)
    monkeypatch.setattr(roots, "device_of", lambda _: "another device")
    for _ in range(2):
        report = engine.index(images, prune=True)
        assert "another one in its place" in report.left_alone[0][1]
        assert state(engine.folder) == before


def test_a_root_that_goes_away_during_the_walk(engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.index(images)
    before = state(engine.folder)
    walk = files.walk

    def interrupted(*arguments: Any, **options: Any) -> Any:
        yield next(walk(*arguments, **options))
        images.rename(images.with_name("unplugged"))

    monkeypatch.setattr(files, "walk", interrupted)
    report = engine.index(images, prune=True)
    assert report.left_alone
    assert state(engine.folder) == before


def test_only_missing_or_failed_files_and_then_away(
    engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "bad.jpg").write_bytes(b"bad")
    engine.index(images)
    for path in images.glob("*.png"):
        path.unlink()
    shutil.rmtree(images / "more")
    engine.index(images)
    before = state(engine.folder)
    (images / "bad.jpg").unlink()
    monkeypatch.setattr(roots, "device_of", lambda _: "another device")
    assert engine.index(images, prune=True).left_alone
    assert state(engine.folder) == before


def test_everything_excluded_is_not_suddenly_empty(engine: Engine, images: Path) -> None:
    engine.index(images)
    report = engine.index(images, exclude=["*"])
    assert (report.missing, report.left_alone) == (10, [])
    assert counts(engine.index(images)) == {"unchanged": 10}


def test_sidecars_stay_with_their_place_when_the_picture_changes(engine: Engine, images: Path) -> None:
    (images / "red.txt").write_text("beside it\n")
    (images / "broken.txt").write_text("beside the broken one\n")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    engine.index(images)
    paint(images / "red.png", "red", 5)
    paint(images / "broken.jpg", "white", 5)
    engine.index(images)
    assert sorted(captions_of(engine)) == [("sidecar", "beside it"), ("sidecar", "beside the broken one")]


def test_moving_a_folder_encodes_no_captions(engine: Engine, images: Path, toy: ToyEncoder) -> None:
    (images / "red.txt").write_text("a red wall\n")
    engine.index(images)
    texts = toy.texts
    images.rename(images.with_name("elsewhere"))
    assert counts(engine.index(images.with_name("elsewhere"))) == {"moved": 10}
    assert toy.texts == texts
    assert captions_of(engine) == [("sidecar", "a red wall")]


def test_tables_name_copies(engine: Engine, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "red.png", images / "copy.png")
    table = tmp_path / "list.csv"
    table.write_text("image,caption\nred.png,one\nred.png,two\ncopy.png,three\n")
    for added in (3, 0):
        assert engine.index(images, captions=[table]).captions == added
        assert sorted(text for _, text in captions_of(engine)) == ["one", "three", "two"]


def test_a_table_names_its_own_folder_first(engine: Engine, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        paint(tmp_path / "photos" / name / "001.png", "red", ord(name))
    (tmp_path / "photos" / "a" / "captions.csv").write_text("image,caption\n001.png,the one in a\n")
    (tmp_path / "photos" / "all.csv").write_text("image,caption\n001.png,any of them\nb/001.png,the one in b\n")
    report = engine.index(
        tmp_path / "photos", captions=[tmp_path / "photos" / "a" / "captions.csv", tmp_path / "photos" / "all.csv"]
    )
    assert sorted(text for _, text in captions_of(engine)) == ["the one in a", "the one in b"]
    assert "several pictures, such as 001.png" in report.notices[0]


def test_a_broken_file_that_comes_back_is_broken(engine: Engine, images: Path, found: Callable[..., list[str]]) -> None:
    engine.index(images)
    (images / "red.png").write_bytes(b"broken now")
    assert counts(engine.index(images)) == {"unchanged": 9, "failed": 1}
    (images / "red.png").rename(images.parent / "red.png")
    engine.index(images)
    (images.parent / "red.png").rename(images / "red.png")
    assert counts(engine.index(images)) == {"unchanged": 9, "failed": 1}
    assert "red.png" not in found("red")
    assert [failed.path.name for failed in engine.status().failed] == ["red.png"]


def test_a_picture_that_the_encoder_cannot_take_costs_only_itself(
    engine: Engine, images: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(images / "blue.png", images / "blue again.png")
    encode, prepare = toy.encode_images, toy.prepare
    blue = toy.encode_texts(["blue"])[0]

    def no_blue(prepared: Any) -> Any:
        rows = encode(prepared)
        rows[rows @ blue > 0.99] = np.nan
        return rows

    def no_green(picture: Image.Image) -> Any:
        if picture.getpixel((0, 0))[1] > picture.getpixel((0, 0))[0] + 60:  # type: ignore[index]
            raise ValueError("green is too much")
        return prepare(picture)

    monkeypatch.setattr(toy, "encode_images", no_blue)
    monkeypatch.setattr(toy, "prepare", no_green)
    assert counts(engine.index(images)) == {"new": 8, "failed": 3}
    reasons = {failed.path.name: failed.error for failed in engine.status().failed}
    assert set(reasons) == {"blue.png", "blue again.png", "green.png"}
    assert "not finite" in reasons["blue.png"]
    assert "green is too much" in reasons["green.png"]


def test_an_encoder_that_miscounts_is_stopped(
    engine: Engine, images: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = toy.encode_images
    monkeypatch.setattr(toy, "encode_images", lambda prepared: encode(prepared)[:-1])
    with pytest.raises(errors.ModelError, match="nothing of this batch was kept"):
        engine.index(images)
    assert not state(engine.folder)["vectors"]


def test_nothing_is_locked_while_encoding(
    engine: Engine, images: Path, toy: ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = toy.encode_images
    entered = 0

    def encode_and_write(prepared: Any) -> Any:
        nonlocal entered
        if entered == 0:
            entered = 1
            with Engine.open(engine.folder, model=ToyEncoder()) as other:
                other.add("key", np.full((9, 9, 3), 200, np.uint8))
        return encode(prepared)

    monkeypatch.setattr(toy, "encode_images", encode_and_write)
    engine.index(images)
    assert {hit.key for hit in engine.search("x", k=99)} == {"key", None}


# --- spaces, generations --------------------------------------------------------------------------------------------


def test_another_model_serves_when_it_is_whole(engine: Engine, images: Path, tmp_path: Path) -> None:
    paint(tmp_path / "second" / "x.png", "red", 4)
    (images / "red.txt").write_text("a red wall")
    engine.index([images, tmp_path / "second"])
    new = ToyEncoder("new toy")
    with Engine.open(engine.folder, model=new) as other:
        report = other.index(images)
        assert counts(report) == {"unchanged": 10}
        assert "1 images have no vector of new toy yet" in report.notices[0]
        assert [(space.encoder, space.current) for space in other.status().spaces] == [
            ("toy", True),
            ("new toy", False),
        ]
        assert len(other.search("red", k=99)) == 10  # asked for by name, it answers with what it has
        other.index()
        assert [(space.encoder, space.current) for space in other.status().spaces] == [
            ("toy", False),
            ("new toy", True),
        ]
        assert [space.captions for space in other.status().spaces] == [1, 1]
        assert other.search("a red wall", find="captions").hits[0].caption == "a red wall"
    assert len(engine.search("red", k=99)) == 11


def test_a_space_that_is_not_there(engine: Engine, images: Path) -> None:
    engine.index(images)
    with (
        Engine.open(engine.folder, model=ToyEncoder("unknown")) as other,
        pytest.raises(errors.SpaceNotFoundError, match="it has those of: toy"),
    ):
        other.search("red")
    with Engine.open(engine.folder, model="lite") as other, pytest.raises(errors.SpaceNotFoundError, match="toy"):
        other.search("red")


def test_weights_that_changed_are_refused(engine: Engine, images: Path) -> None:
    engine.index(images)
    changed = ToyEncoder()
    changed.space = type(changed.space)("toy", "other weights", 13)
    with Engine.open(engine.folder, model=changed) as other, pytest.raises(errors.SpaceNotFoundError):
        other.search("red")


def test_generations_follow_the_rows(engine: Engine, images: Path) -> None:
    def generation() -> str | None:
        with Catalog(engine.folder, create=False).reading() as connection:
            return connection.exec_driver_sql("SELECT images_generation FROM space").scalar()

    engine.index(images)
    first = generation()
    assert first is not None
    paint(images / "one.png", "white", 50)
    engine.index(images)
    assert generation() == first  # one in ten is scanned beside the old one
    assert len(engine.search("white", k=99)) == 11
    paint(images / "two.png", "white", 51)
    engine.index(images)
    assert generation() != first
    second = generation()
    for name in ("one.png", "two.png", "black.png"):
        (images / name).unlink()
    engine.index(images, prune=True)
    assert generation() != second  # three of twelve were deleted
    assert len(engine.search("white", k=99)) == 9
    assert engine.status().spaces[0].index.kind == "flat"
    assert engine.verify().sound


def test_a_damaged_generation_is_worked_around_said_and_rebuilt(engine: Engine, images: Path) -> None:
    engine.index(images)
    expected = engine.search("red", k=99).hits
    target = next(path for path in (engine.folder / "index").rglob("*") if path.is_file() and path.suffix == ".faiss")
    data = bytearray(target.read_bytes())
    data[-3] ^= 0x40
    target.write_bytes(data)
    with Engine.open(engine.folder, model=ToyEncoder()) as other:
        result = other.search("red", k=99)
        assert result.hits == expected
        assert result.notice is not None and "mmsearch index" in result.notice
        assert other.search("red", k=99).notice is None
        assert not other.verify().sound
    report = engine.index()
    assert "rebuilds it" in report.notices[0]
    assert engine.verify().sound
    shutil.rmtree(engine.folder / "index")
    with Engine.open(engine.folder, model=ToyEncoder()) as other:
        result = other.search("red", k=99)
        assert result.hits == expected and result.notice
    engine.index()
    assert engine.verify().sound


def test_the_sidecar_reader_is_the_one_of_captions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_sidecar(tmp_path / "a.txt") == ["one", "two"]
