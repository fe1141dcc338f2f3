"""Pictures about which nothing is said: where they are found, who may learn from them, and that no copy of what is held
out is among them."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from mmsearch import Engine
from mmsearch.errors import UsageError
from mmsearch.training.examples import Supervised, read
from mmsearch.training.picture import Picture
from mmsearch.training.splits import by_caption, by_picture
from tests.conftest import paint
from tests.test_training_examples import captioned
from tests.test_training_splits import contents, picture
from tests.toy import COLOURS


def mute(folder: Path, count: int, first: int = 100) -> list[Path]:
    return [paint(folder / f"s{one}.png", list(COLOURS)[one % 8], first + one) for one in range(count)]


def keys(pictures: tuple[Picture, ...]) -> list[str]:
    return sorted(picture.key for picture in pictures)


def silent_one(number: int, key: str = "", split: str | None = None) -> Picture:
    return replace(picture(number, key, captions=0), split=split)  # type: ignore[arg-type]


# --- folders ------------------------------------------------------------------------------------------------------


def test_in_a_folder_all_that_no_table_names_wherever_it_lies(tmp_path: Path) -> None:
    captioned(tmp_path)
    mute(tmp_path / "images", 2)
    mute(tmp_path / "more" / "deep", 3, first=200)
    shutil.copy(tmp_path / "images" / "p3.png", tmp_path / "more" / "copy of one with words.png")
    shutil.copy(tmp_path / "images" / "s0.png", tmp_path / "more" / "z.png")  # counts once
    (tmp_path / "notes.txt").write_text("no picture")
    broken = (tmp_path / "images" / "s1.png").read_bytes()
    (tmp_path / "more" / "broken.png").write_bytes(broken[: len(broken) // 2])
    plain = read(tmp_path)
    assert (plain.silent, plain.left_out, plain.notices) == ((), (), ())
    found = read(tmp_path, wanted="both")
    assert found.pictures == plain.pictures
    assert keys(found.silent) == [*(f"more/deep/s{n}.png" for n in range(3)), "more/z.png", "s0.png", "s1.png"]
    assert len({one.content for one in found.silent}) == 5
    assert not any(one.said for one in found.silent)
    assert [one.path.name for one in found.left_out] == ["broken.png"]
    assert [line.partition(": ")[2] for line in found.notices] == ["2; they count once, with all that is said of them."]
    assert read(tmp_path, wanted="pictures").silent == found.silent


def test_labels_and_folders_too_small_to_be_one(tmp_path: Path) -> None:
    for one in range(5):
        paint(tmp_path / "apple" / f"{one}.png", "red", one)
        paint(tmp_path / "sky" / f"{one}.png", "blue", one)
    mute(tmp_path / "few", 3)
    mute(tmp_path, 1, first=300)
    assert keys(read(tmp_path, wanted="both").silent) == ["few/s0.png", "few/s1.png", "few/s2.png", "s0.png"]


def test_a_folder_without_any_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"at least 10 different pictures; the pictures of .* have 0: 0 were found"):
        read(tmp_path, wanted="pictures")
    mute(tmp_path / "a", 9)
    with pytest.raises(UsageError, match="cannot be evaluated"):
        read(tmp_path)
    with pytest.raises(UsageError, match=r"at least 10 different pictures; the pictures of .* have 9: 9 were found"):
        read(tmp_path, wanted="pictures")
    mute(tmp_path, 1, first=300)
    for wanted in ("both", "pictures"):
        found = read(tmp_path, wanted=wanted)  # type: ignore[arg-type]
        assert (found.about, found.pictures, len(found.silent)) == (f"the pictures of {tmp_path}", (), 10)
        assert found.notices == ()


def test_a_table_that_cannot_be_used_is_still_a_mistake(tmp_path: Path) -> None:
    mute(tmp_path / "images", 12)
    (tmp_path / "captions.csv").write_text("image,caption\ns0.png\n")
    with pytest.raises(UsageError, match=r"captions\.csv"):
        read(tmp_path, wanted="both")


def test_splits_say_what_is_trained_on_and_what_is_not(tmp_path: Path) -> None:
    captioned(tmp_path, 14)
    mute(tmp_path / "images", 6)
    (tmp_path / "dev.txt").write_text("p0.png\ns0.png\n")
    (tmp_path / "test.txt").write_text("p1.png\ns1.png\ngone.png\n")
    found = read(tmp_path, wanted="both")
    assert {one.key: one.split for one in found.silent} == {
        **{f"s{n}.png": None for n in range(2, 6)}, "s0.png": "dev", "s1.png": "test",
    }  # fmt: skip
    assert [(one.path.name, one.error) for one in found.left_out] == [
        (name, "it has no caption in captions.csv") for name in ("s0.png", "s1.png", "gone.png")
    ]
    (tmp_path / "train.txt").write_text("".join(f"p{n}.png\n" for n in range(2, 12)) + "s2.png\ns3.png\nlost.png\n")
    found = read(tmp_path, wanted="both")
    assert {one.key: one.split for one in found.silent} == {
        "s0.png": "dev", "s1.png": "test", "s2.png": "train", "s3.png": "train",
    }  # fmt: skip
    assert ("lost.png", "it is not there") in [(one.path.name, one.error) for one in found.left_out]
    (tmp_path / "captions.csv").unlink()
    without = read(tmp_path, wanted="pictures")
    assert without.pictures == ()
    assert sum(one.split == "train" for one in without.silent) == 12
    assert sum(one.split in ("dev", "test") for one in without.silent) == 4


def test_words_are_needed_only_where_texts_are_read(tmp_path: Path) -> None:
    captioned(tmp_path)
    mute(tmp_path / "images", 10)
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(f"p{n}.png,the same\n" for n in range(12)))
    for wanted in ("words", "both"):
        with pytest.raises(UsageError, match="have the same caption, 'the same'"):
            read(tmp_path, wanted=wanted)  # type: ignore[arg-type]
    assert len(read(tmp_path, wanted="pictures").pictures) == 12
    (tmp_path / "captions.csv").write_text("image,caption\np1.png,a\np2.png,b\n")
    with pytest.raises(
        UsageError, match=r"10 different pictures with a text; the captions of .* have 2: 22 were found"
    ):
        read(tmp_path, wanted="both")
    found = read(tmp_path, wanted="pictures")
    assert (len(found.pictures), len(found.silent)) == (2, 20)


# --- shards and collections -----------------------------------------------------------------------------------------


def test_samples_of_shards_without_a_text(tmp_path: Path) -> None:
    pictures = mute(tmp_path / "painted", 24)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, path in enumerate(pictures):
            tar.add(path, f"{number}.png")
            if number < 12:
                told = tarfile.TarInfo(f"{number}.txt")
                words = f"thing {number}".encode()
                told.size = len(words)
                tar.addfile(told, io.BytesIO(words))
    found = read(tmp_path / "a.tar", wanted="both")
    assert (len(found.pictures), keys(found.silent)) == (12, sorted(f"a/{n}.png" for n in range(12, 24)))
    assert {one.read() for one in found.silent} == {path.read_bytes() for path in pictures[12:]}
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for number, path in enumerate(pictures):
            tar.add(path, f"{number}.png")
    found = read(tmp_path / "b.tar", wanted="both")
    assert (found.about, len(found.pictures), len(found.silent)) == (f"the pictures of {tmp_path / 'b.tar'}", 0, 24)


def test_images_of_a_collection_without_words(engine: Engine, tmp_path: Path) -> None:
    paths = mute(tmp_path / "mine", 20)
    engine.index(tmp_path / "mine")
    found = read(engine.folder, wanted="pictures")
    assert (found.about, found.pictures) == (f"the pictures of the collection {engine.folder}", ())
    assert {one.place for one in found.silent} == set(paths)
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n" + "".join(f"{path.name},No {path.name}\n" for path in paths[:12]))
    engine.index(captions=table)
    paths[0].unlink()
    paths[13].unlink()
    assert read(engine.folder).silent == ()
    found = read(engine.folder, wanted="both")
    assert {one.place for one in found.pictures} == set(paths[1:12])
    assert {one.place for one in found.silent} == {*paths[12:]} - {paths[13]}
    assert {one.path for one in found.left_out} == {paths[0], paths[13]}


# --- what is held out -----------------------------------------------------------------------------------------------


def test_copies_of_held_out_pictures_are_not_trained_on() -> None:
    said = [picture(one, f"p{one}.jpg") for one in range(100)]
    by_name = [silent_one(1000 + one, f"p{one} (1).jpg") for one in range(100)]
    free = [silent_one(2000 + one, f"q{one}.jpg") for one in range(50)]
    (sides,) = by_picture([Supervised("these", tuple(said), silent=(*by_name, *free))])
    (without,) = by_picture([Supervised("these", tuple(said))])
    assert (sides.train, sides.dev, sides.test) == (without.train, without.dev, without.test)
    trained = {one.name for one in sides.train}
    assert {one.key for one in sides.silent} == {
        *(one.key for one in free), *(one.key for one in by_name if one.name in trained)
    }  # fmt: skip
    copies = len(sides.dev) + len(sides.test)
    assert copies >= 40
    assert sides.notices == (f"These: {copies:,} without a text are copies of held-out pictures, and not trained on.",)


def test_a_copy_under_two_names_is_known_by_both() -> None:
    said = tuple(picture(one, f"p{one}.jpg", split="test" if one < 5 else None) for one in range(60))
    silent = tuple(silent_one(100 + one, key) for one in range(60) for key in (f"a{one}.jpg", f"p{one} (1).jpg"))
    (sides,) = by_picture([Supervised("these", said, silent=silent)], dev=0, test=0)
    assert contents(sides.silent) == contents(silent[10:])
    assert len(sides.silent) == 55


def test_what_is_a_copy_in_one_set_is_one_in_all() -> None:
    said = tuple(picture(one, f"p{one}.jpg", split="test" if one < 5 else None) for one in range(60))
    near = tuple(silent_one(100 + one, f"p{one} (1).jpg") for one in range(5))
    other = tuple(silent_one(100 + one, f"x{one}.jpg") for one in range(8))
    sides = by_picture([Supervised("these", said, silent=near), Supervised("others", (), silent=other)], dev=0, test=0)
    assert sides[0].silent == ()
    assert contents(sides[1].silent) == contents(other[5:])
    assert [line for one in sides for line in one.notices] == [
        f"{which}: 5 without a text are copies of held-out pictures, and not trained on."
        for which in ("These", "Others")
    ]


def test_series_are_no_copies() -> None:
    said = [picture(one, f"holiday ({one}).jpg") for one in range(40)]
    more = [silent_one(100 + one, f"holiday ({one}).jpg") for one in range(40, 90)]
    (sides,) = by_picture([Supervised("these", tuple(said), silent=tuple(more))])
    assert sides.silent == tuple(more)


def test_what_splits_hold_out_without_a_text_is_not_trained_on_nor_are_its_copies() -> None:
    said = [picture(one) for one in range(40)]
    silent = [
        silent_one(100, "x.jpg", "test"), silent_one(101, "x copy.jpg"), silent_one(102, "y.jpg", "dev"),
        silent_one(103, "z.jpg"),
    ]  # fmt: skip
    other = Supervised("others", (), silent=(silent_one(102, "elsewhere.jpg"), silent_one(104, "x.jpg")))
    sides = by_picture([Supervised("these", tuple(said), silent=tuple(silent)), other])
    assert keys(sides[0].silent) == ["z.jpg"]
    assert keys(sides[1].silent) == ["x.jpg"]  # a name of another folder says nothing


def test_of_two_sets_what_has_words_in_one_is_silent_in_none() -> None:
    said = [picture(one) for one in range(60)]
    everything = tuple(silent_one(one, f"all/{one}.jpg") for one in range(80))
    sides = by_picture([Supervised("these", tuple(said)), Supervised("all", (), silent=everything)])
    assert sides[0].silent == ()
    assert contents(sides[1].silent) == contents(everything[60:])
    assert (sides[1].train, sides[1].dev, sides[1].test) == ((), (), ())


def test_nothing_need_be_held_out_where_nothing_is_measured() -> None:
    few = Supervised("these", (picture(1), picture(2)), silent=tuple(silent_one(100 + one) for one in range(20)))
    with pytest.raises(UsageError, match="The 22 pictures of these cannot be divided: 22 are left"):
        by_picture([few])
    (sides,) = by_picture([few], measured=False)
    assert (len(sides.train), len(sides.silent)) == (2, 20)
    held = Supervised("these", tuple(picture(one, split="test") for one in range(12)))
    with pytest.raises(UsageError, match="0 are left to train on"):
        by_picture([held], measured=False)


def test_beside_captions_that_are_divided() -> None:
    said = tuple(picture(one, f"p{one}.jpg", captions=2) for one in range(40))
    silent = tuple(silent_one(100 + one, f"p{one} (1).jpg") for one in range(40))
    sides = by_caption(Supervised("these", said, silent=silent))
    held = {one.name for one in sides.dev}
    assert 0 < len(held) < 40
    assert {one.name for one in sides.silent} == {one.name for one in said} - held
