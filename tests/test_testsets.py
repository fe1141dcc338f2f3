"""Test sets from folders and collections: what is asked, what is right, what is left out as it says nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import Engine, testsets
from mmsearch.catalog import samples
from mmsearch.errors import UsageError
from mmsearch.testsets import Captioned, Labelled, Source
from tests.conftest import paint
from tests.toy import COLOURS


@pytest.mark.parametrize(
    ("relative", "label"),
    [
        ("cats/1.jpg", "cats"),
        ("Rome 2019/IMG_1.jpg", "rome"),
        ("2019-05-03 Birthday_party/a.jpg", "birthday party"),
        ("Rome/DCIM/100CANON/IMG_1.jpg", "rome"),
        ("Rome/101_PANA/x.jpg", "rome"),
        ("Rome/123APPLE/x.jpg", "rome"),
        ("Photos of cats/x.jpg", "photos of cats"),
        ("weapons/007.ak47/x.jpg", "ak47"),
        ("Köln/x.jpg", "köln"),
        ("東京/x.jpg", "東京"),
        ("Kids (small)/x.jpg", "kids small"),
        ("x.jpg", "holiday"),
        ("DCIM/x.jpg", "holiday"),
        ("2020/05/x.jpg", "holiday"),
        ("May 2020/x.jpg", "holiday"),
        ("05-May-2020/x.jpg", "holiday"),
        ("img/train/x.jpg", "holiday"),
        ("DSC_0001/x.jpg", "holiday"),
        ("New Folder (2)/x.jpg", "holiday"),
    ],
)
def test_a_folder_is_a_label_when_its_name_says_something(relative: str, label: str) -> None:
    assert testsets.folder_label("/home/someone/Holiday 3", relative) == label


def test_a_place_of_which_nothing_tells_anything_has_no_label() -> None:
    for root in ("/home/cats/Pictures", "/media/DCIM", "/mnt/2019-05-03"):
        assert testsets.folder_label(root, "100CANON/IMG_1.jpg") is None


def test_labels_become_words() -> None:
    assert testsets.as_words("Hot_air.balloon") == "hot air balloon"
    assert testsets.as_words("t-shirt") == "t-shirt"
    assert testsets.as_words("2019-05-03-rome") == "rome"
    assert testsets.as_words("Faces_easy") == "faces easy"
    assert testsets.as_words(" 007 ") == "007"


# --- folders ------------------------------------------------------------------------------------------------------


def test_a_table_of_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,label,split\na/1.png,big_cat,x\nb/2.png,dog,y\na/3.png,big_cat,y\n")
    made, left_out = testsets.from_folder(tmp_path, None)
    assert isinstance(made, Labelled)
    assert made.texts == ("big cat", "dog")
    assert made.pictures == tuple(tmp_path / name for name in ("a/1.png", "b/2.png", "a/3.png"))
    assert made.right.tolist() == [[True, False, True], [False, True, False]]
    assert left_out == []
    (tmp_path / "images").mkdir()
    split = tmp_path / "some.txt"
    split.write_text("b/2.png\na/3.png\nc/4.png\n")
    made, left_out = testsets.from_folder(tmp_path, split)
    assert made.pictures == (tmp_path / "images/b/2.png", tmp_path / "images/a/3.png")
    assert [(one.path.name, one.error) for one in left_out] == [("4.png", "it has no label in labels.csv")]
    assert made.about.endswith(", those of some.txt")


def test_a_picture_may_have_several_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,label\n1.png,cat\n1.png,tree\n2.png,tree\n")
    made, _ = testsets.from_folder(tmp_path, None)
    assert isinstance(made, Labelled)
    assert made.right.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,class\n1.png,cat\n", "line 2: expected are the columns image,label"),
        ("image,label\n1.png,cat\n2.png,\n", "line 3: expected are"),
        ("image,label\n", "line 1: expected are"),
        ("image,label\n1.png,cat\n2.png,cat\n", "all the same"),
    ],
)
def test_a_wrong_table_of_labels_says_where(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UsageError, match=message):
        testsets.from_folder(tmp_path, None)


def test_a_subfolder_for_each_label(tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "red_things" / f"{number}.png", "red", number)
        paint(tmp_path / "Blue things" / "deeper" / f"{number}.png", "blue", number)
    for number in range(4):
        paint(tmp_path / "too few" / f"{number}.png", "green", number)
    paint(tmp_path / "loose.png", "white")
    (tmp_path / "red_things" / "notes.txt").write_text("no picture")
    made, _ = testsets.from_folder(tmp_path, None)
    assert isinstance(made, Labelled)
    assert made.texts == ("blue things", "red things")
    assert made.right.sum(axis=1).tolist() == [5, 5]
    assert {path.parent.name for path in made.pictures} == {"red_things", "deeper"}


def test_a_part_of_a_set_keeps_what_belongs_together() -> None:
    captioned = Captioned("", ("a", "b", "c"), ("a1", "b1", "b2", "c1"), np.array([0, 1, 1, 2]), (4, 5, 6, 7))
    part = captioned.only([2, 1])
    assert (part.pictures, part.texts, part.owners.tolist(), part.captions) == (
        ("c", "b"),
        ("b1", "b2", "c1"),
        [1, 1, 0],
        (5, 6, 7),
    )
    labelled = Labelled("", ("a", "b", "c"), ("x", "y"), np.array([[True, False, False], [False, True, True]]))
    some = labelled.only([1])
    assert (some.pictures, some.texts, some.right.tolist()) == (("b",), ("y",), [[True]])


# --- collections --------------------------------------------------------------------------------------------------


def built(engine: Engine, source: Source | None = None) -> Captioned | Labelled:
    with engine._catalog.reading() as connection:
        images = samples.encoded_images(connection, 1)
        return testsets.from_collection(connection, images, source)


@pytest.fixture
def filed(tmp_path: Path, engine: Engine) -> Engine:
    """Six red pictures under `red wine`, five blue ones under `sea/100CANON`, two green ones."""
    root = tmp_path / "images"
    for number in range(6):
        paint(root / "red wine" / f"{number}.png", "red", number)
    for number in range(5):
        paint(root / "2019 sea" / "100CANON" / f"{number}.png", "blue", number)
    for number in range(2):
        paint(root / "forest" / f"{number}.png", "green", number)
    engine.index(root)
    return engine


def test_folder_names_of_a_collection(filed: Engine) -> None:
    made = built(filed)
    assert isinstance(made, Labelled)
    assert made.texts == ("red wine", "sea")
    assert made.right.sum(axis=1).tolist() == [6, 5]
    assert len(made.pictures) == 11  # the two green ones have no label that enough others share
    assert made.about == "the folder names of the collection (2 folders)"


def test_copies_in_two_folders_have_both_labels(filed: Engine, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "images" / "red wine" / "0.png", tmp_path / "images" / "2019 sea" / "copy.png")
    filed.index()
    made = built(filed)
    assert isinstance(made, Labelled)
    assert (made.right.sum(axis=1).tolist(), len(made.pictures)) == ([6, 6], 11)


def test_captions_come_first_and_boilerplate_is_left_out(tmp_path: Path, engine: Engine) -> None:
    root = tmp_path / "images"
    for number in range(12):
        path = paint(root / ("one" if number % 2 else "two") / f"{number}.png", list(COLOURS)[number % 8], number)
        path.with_suffix(".txt").write_text(f"OLYMPUS DIGITAL CAMERA\npicture number {number}\n")
    paint(root / "without.png", "white", 99)
    engine.index(root)
    made = built(engine)
    assert isinstance(made, Captioned)
    assert sorted(made.texts) == sorted(f"picture number {number}" for number in range(12))
    assert len(made.pictures) == 13  # the one without a caption may still be taken for another
    assert made.about == (
        "the captions of the collection (12 captioned pictures; 1 left out, for several pictures share the text)"
    )
    by_folder = built(engine, "folders")
    assert isinstance(by_folder, Labelled)
    assert by_folder.texts == ("one", "two")


def test_too_little_says_how_much_there_is(filed: Engine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from captions: pictures with a caption of their own: 0, where 10 are"):
        built(filed, "captions")
    shutil.rmtree(tmp_path / "images" / "2019 sea")
    filed.index()
    with pytest.raises(UsageError, match="folders with 5 pictures and a name that says what they show: 1, where 2"):
        built(filed, "folders")
    with pytest.raises(UsageError, match=r"caption of their own: 0, .* folders with 5"):
        built(filed)


def test_large_collections_are_sampled_the_same_way_each_time(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(24):
        path = paint(tmp_path / "images" / f"{number}.png", "red", number)
        path.with_suffix(".txt").write_text(f"number {number}")
    engine.index(tmp_path / "images")
    whole = built(engine)
    monkeypatch.setattr(testsets, "MOST_CANDIDATES", 20)
    monkeypatch.setattr(testsets, "MOST_ASKED", 11)
    made = built(engine)
    assert isinstance(made, Captioned)
    assert made.pictures == whole.pictures[:20]
    assert made.owners.tolist() == list(range(11))
    assert "20 of 24 pictures; 11 captioned pictures of 20" in made.about


@settings(deadline=None, max_examples=50)
@given(name=st.text(max_size=20))
def test_any_name_is_a_label_or_none(name: str) -> None:
    label = testsets.folder_label("/", f"{name.replace('/', '')}/x.jpg")
    assert label is None or (label.strip() and label == label.lower())
