"""Supervision read from folders, shards and collections: what is taken, what is left out, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch import Engine
from mmsearch.errors import PictureError, UsageError
from mmsearch.training import mixing
from mmsearch.training.examples import Supervised, read
from mmsearch.training.picture import Picture, number, plain, spoken
from tests.conftest import paint
from tests.toy import COLOURS


def captioned(folder: Path, count: int = 12) -> Path:
    """`count` pictures with two captions each."""
    colours = list(COLOURS)
    lines = ["image,caption"]
    for one in range(count):
        colour = colours[one % len(colours)]
        paint(folder / "images" / f"p{one}.png", colour, one)
        lines += [f"p{one}.png,A {colour} thing {one}.", f"p{one}.png,{colour} again {one}"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def by_key(supervised: Supervised) -> dict[str, Picture]:
    return {picture.key: picture for picture in supervised.pictures}


# --- folders ----------------------------------------------------------------------------------------------------


def test_a_folder_with_captions(tmp_path: Path) -> None:
    found = read(captioned(tmp_path))
    assert [picture.key for picture in found.pictures] == [f"p{one}.png" for one in range(12)]
    third = by_key(found)["p3.png"]
    assert third.captions == ("A yellow thing 3.", "yellow again 3")
    assert third.content == hashlib.sha256((tmp_path / "images" / "p3.png").read_bytes()).hexdigest()
    with Image.open(tmp_path / "images" / "p3.png") as original:
        np.testing.assert_array_equal(np.asarray(third.open(40)), np.asarray(original))
    assert (found.left_out, found.notices) == ((), ())


def test_what_is_broken_is_listed_and_left_out(tmp_path: Path) -> None:
    captioned(tmp_path, 14)
    images = tmp_path / "images"
    (images / "p1.png").unlink()
    whole = (images / "p2.png").read_bytes()
    (images / "p2.png").write_bytes(whole[: len(whole) // 2])
    (images / "p3.png").write_text("no picture")
    seen = []
    found = read(tmp_path, on_progress=seen.append)
    assert len(found.pictures) == 11
    assert [(one.path.name, one.error.split(":")[0]) for one in found.left_out] == [
        ("p1.png", "it is not there"),
        ("p2.png", "the PNG is truncated"),
        ("p3.png", "not a picture that can be read"),
    ]
    assert [(one.stage, one.done, one.total) for one in seen] == [("scanning", one, 14) for one in range(1, 15)]


def test_equal_files_are_one_picture_with_all_that_is_said(tmp_path: Path) -> None:
    captioned(tmp_path)
    shutil.copy(tmp_path / "images" / "p5.png", tmp_path / "images" / "p11.png")
    found = read(tmp_path)
    assert len(found.pictures) == 11
    assert by_key(found)["p11.png"].captions == (
        "A white thing 5.",
        "white again 5",
        "A yellow thing 11.",
        "yellow again 11",
    )
    assert found.notices[0].startswith("Equal files among the captions of")


def test_split_files_put_pictures_on_their_side(tmp_path: Path) -> None:
    captioned(tmp_path, 16)
    for side, rows in (("train", range(10)), ("dev", range(10, 12)), ("test", range(12, 14))):
        (tmp_path / f"{side}.txt").write_text("".join(f"p{row}.png\n" for row in rows) + "gone.png\n" * (side == "dev"))
    found = read(tmp_path)
    assert {side: sum(one.split == side for one in found.pictures) for side in ("train", "dev", "test")} == {
        "train": 10,
        "dev": 2,
        "test": 2,
    }
    assert "p14.png" not in by_key(found)  # the folder says what to train on, and this is not it
    assert [(one.path.name, one.error) for one in found.left_out] == [("gone.png", "it has no caption in captions.csv")]


def test_labels_are_said_in_sentences(tmp_path: Path) -> None:
    for one in range(5):
        paint(tmp_path / "red_apple" / f"{one}.png", "red", one)
        paint(tmp_path / "sky" / f"{one}.png", "blue", one)
    found = read(tmp_path)
    apple = by_key(found)["red_apple/0.png"]
    assert (apple.labels, apple.captions) == (("red apple",), ())
    assert apple.said[:2] == (("red apple", "red apple"), ("a photo of a red apple", "red apple"))
    assert len(spoken(found.pictures)) == 2 * len(apple.said)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["Same!"] * 12, r"All pictures of the captions of .* have the same caption, 'same'"),
        ([f"c {one}" for one in range(7)], r"at least 10 different pictures .* have 7: 7 were found, 0 left out"),
    ],
)
def test_what_teaches_nothing_is_refused(tmp_path: Path, captions: list[str], message: str) -> None:
    captioned(tmp_path)
    rows = "".join(f"p{one}.png,{caption}\n" for one, caption in enumerate(captions))
    (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}")
    with pytest.raises(UsageError, match=message):
        read(tmp_path)


def test_all_mistakes_of_a_source_are_told_together(tmp_path: Path) -> None:
    captioned(tmp_path, 9)
    (tmp_path / "images" / "p1.png").unlink()
    (tmp_path / "train.txt").write_text("p2.png\np3.png\n")
    (tmp_path / "dev.txt").write_text("p3.png\n")
    (tmp_path / "test.txt").write_text("")
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    for part in ("test.txt is empty", "1 images stand in more than one of", "at least 10 different pictures"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_source_of_a_known_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no folder, no \.tar file and no collection"):
        read(tmp_path / "nothing")


# --- shards -----------------------------------------------------------------------------------------------------


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def shard(path: Path, rows: range) -> dict[str, bytes]:
    """Captions, JSON, a class: a third each. -> the bytes of the pictures."""
    contents = {}
    with tarfile.open(path, "w") as tar:
        for one in rows:
            picture = paint(path.parent / "painted" / f"{one}.png", list(COLOURS)[one % 8], one).read_bytes()
            contents[f"{path.stem}/a/{one}.png"] = picture
            if one % 3 == 0:
                add(tar, f"a/{one}.txt", f"first {one}\n\nsecond {one}\n".encode())
            add(tar, f"a/{one}.png", picture)
            if one % 3 == 1:
                add(tar, f"a/{one}.json", json.dumps({"caption": f"told {one}", "label": "hot_dog", "x": 1}).encode())
            if one % 3 == 2:
                add(tar, f"a/{one}.cls", b"Hot-air_balloon\n")
    return contents


def test_shards_are_read_from_their_place(tmp_path: Path) -> None:
    contents = shard(tmp_path / "b.tar", range(7)) | shard(tmp_path / "c.tar", range(7, 14))
    found = read(tmp_path)
    assert {picture.key: picture.read() for picture in found.pictures} == contents
    pictures = by_key(found)
    assert pictures["b/a/3.png"].captions == ("first 3", "second 3")
    assert (pictures["b/a/4.png"].captions, pictures["b/a/4.png"].labels) == (("told 4",), ("hot dog",))
    assert (pictures["c/a/8.png"].captions, pictures["c/a/8.png"].labels) == ((), ("hot-air balloon",))
    assert pictures["b/a/4.png"].said == (("told 4", "hot dog"),)
    one, all_of_it = read(tmp_path / "*.tar"), tmp_path / "all.tar"
    assert one.pictures == found.pictures
    shard(all_of_it, range(12))
    assert len(read(all_of_it).pictures) == 12


def test_members_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    shard(path, range(12))
    with tarfile.open(path, "a") as tar:
        add(tar, "alone.txt", b"words")
        add(tar, "bad.png", b"x")
        add(tar, "bad.json", b"{")
        add(tar, "mute.png", paint(tmp_path / "m.png", "white", 99).read_bytes())
        add(tar, "broken.png", b"no picture")
        add(tar, "broken.txt", b"words")
    found = read(path)
    assert len(found.pictures) == 12
    assert [(one.path.name, one.error.split(":")[0]) for one in found.left_out] == [
        ("alone", "no picture stands beside it in the shard"),
        ("bad.png", "its JSON in the shard cannot be read"),
        ("broken.png", "not a picture that can be read"),
        ("mute.png", "nothing is said about it"),
    ]


def test_a_shard_that_was_cut_short_gives_what_lies_before(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    shard(path, range(14))
    with tarfile.open(path) as tar:
        last = tar.getmember("a/12.png")
    path.write_bytes(path.read_bytes()[: last.offset_data + 10])
    found = read(path)
    assert len(found.pictures) == 12
    assert ("b.tar", "it is truncated; what lies before its end is used") in [
        (one.path.name, one.error) for one in found.left_out
    ]


def test_compressed_shards_and_files_that_are_none_are_named_together(tmp_path: Path) -> None:
    for name in ("x.tar.gz", "y.tgz"):
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            add(tar, "a.txt", b"words")
    (tmp_path / "z.tar").write_text("not a tar file at all" * 100)
    with pytest.raises(UsageError, match=r"x\.tar\.gz is compressed \(gzip\).*y\.tgz is compressed.*z\.tar is no tar"):
        read(tmp_path)


# --- collections ------------------------------------------------------------------------------------------------


def test_a_collection_speaks_by_captions_then_tags_then_folders(engine: Engine, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        for one in range(6):
            paint(tmp_path / "mine" / f"{colour} things" / f"{one}.png", colour, one)
    engine.index(tmp_path / "mine")
    found = read(engine.folder)
    assert {picture.labels for picture in found.pictures} == {("red things",), ("blue things",)}
    assert found.about.startswith("the folder names of the collection")

    paths = sorted((tmp_path / "mine").rglob("*.png"))
    for path in paths[:11]:
        engine.add_tags([path], [f"tag {path.parent.name[0]}", "all"])
    found = read(str(engine.folder))
    assert len(found.pictures) == 11
    assert {picture.labels for picture in found.pictures} == {("all", "tag b"), ("all", "tag r")}

    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n" + "".join(f"{path.parent.name}/{path.name},No {path}\n" for path in paths))
    engine.index(captions=table)
    paint(paths[0], "green", 77)
    paths[1].unlink()
    found = read(engine.folder)
    assert {(picture.place, picture.captions) for picture in found.pictures} == {
        (path, (f"No {path}",)) for path in paths[2:]
    }
    for picture in found.pictures:
        assert hashlib.sha256(picture.read()).hexdigest() == picture.content
    assert {one.path for one in found.left_out} == set(paths[:2])
    assert "run `mmsearch index` again" in found.left_out[0].error


def test_a_collection_is_found_by_name_and_may_say_too_little(tmp_path: Path, toy: object) -> None:
    paint(tmp_path / "mine" / "a.png", "red")
    with Engine.open("trips", model=toy) as engine:  # type: ignore[arg-type]
        engine.index(tmp_path / "mine")
    with pytest.raises(UsageError, match="captions 0, tags 0, folder names 0"):
        read("trips")


# --- several sets -----------------------------------------------------------------------------------------------


def test_sets_have_weights_and_paths_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned(tmp_path / "a")
    captioned(tmp_path / "2:b", 11)
    monkeypatch.chdir(tmp_path)
    sets = mixing.read_all(["./a", "0.5:./a", "2:b"])
    assert [(one.weight, len(one.supervised.pictures)) for one in sets] == [(1, 12), (0.5, 12), (1, 11)]
    with pytest.raises(UsageError, match=r"'0' is no weight.*none at all cannot be trained on"):
        mixing.read_all(["0:./a", "./a", "none at all"])
    with pytest.raises(UsageError, match="--data"):
        mixing.read_all([])


# --- words and numbers ------------------------------------------------------------------------------------------


def test_equal_words_have_equal_numbers() -> None:
    assert plain("  A Dog, \n running.") == plain("a dog running") == "a dog running"
    assert plain("!!") == "!!"
    assert number("") == -1
    assert number("a dog") == int(hashlib.sha256(b"a dog").hexdigest()[:16], 16) // 2
    assert number("\udcff") >= 0


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/IMG_1 (1).JPG", "a/img_1"),
        ("a/IMG_1.jpg", "a/img_1"),
        ("a/IMG_1-edited.jpg", "a/img_1"),
        ("a/img_1 copy 2.png", "a/img_1"),
        ("a/img_1-1024x768.png", "a/img_1"),
        ("icon@2x.png", "icon"),
        ("IMG_1.jpg", "img_1"),
        ("IMG_12.jpg", "img_12"),
        ("copy.jpg", "copy"),
        ("a dog (1) small_thumb.webp", "a dog"),
    ],
)
def test_copies_have_one_name(key: str, name: str) -> None:
    def unread() -> bytes:
        raise PictureError("never read")

    assert Picture(key, Path(key), "", unread).name == name
