"""Evaluation of a transparent encoder (mean colour of a picture, names of colours) on hand-worked folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.protocol import Space
from mmsearch.errors import UsageError
from mmsearch.evaluation import evaluate
from mmsearch.settings import Limits
from mmsearch.types import Progress

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class ColourEncoder:
    """Pictures become their mean colour, texts the colour they start with; unit length."""

    space = Space("colour", "0", 3)
    image_size = 8
    batch_size = 2

    def prepare(self, picture: Image.Image) -> NDArray[Any]:
        return np.asarray(picture.resize((1, 1)), dtype=np.float32).reshape(3)

    def encode_images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        rows = np.array(prepared, dtype=np.float32).reshape(-1, 3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode_images([np.float32(COLOURS[text.split()[0]]) for text in texts])


def folder_with(tmp_path: Path, pictures: dict[str, str], table: str, name: str = "captions.csv") -> Path:
    (tmp_path / "images").mkdir()
    for file, colour in pictures.items():
        Image.new("RGB", (20, 10), COLOURS[colour]).save(tmp_path / "images" / file)
    (tmp_path / name).write_text(table)
    return tmp_path


def test_figures_of_a_hand_worked_folder(tmp_path: Path) -> None:
    # c.png is green but all its captions say something else, so it is found by none of them at rank 1.
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue", "c.png": "green"},
        "image,caption\na.png,red\na.png,red again\nb.png,blue\nc.png,blue thing\nc.png,red thing\n",
    )
    seen: list[Progress] = []
    result = evaluate(folder, ColourEncoder(), on_progress=seen.append)
    assert (result.images, result.captions, result.space, result.left_out) == (3, 5, "colour", ())
    # t2i: a 1, a 1, b 1. "blue thing" of c: b scores 1, c and a score 0 (a tie of one, which costs nothing): rank 2.
    # "red thing" of c the same: 2.
    assert result.text_to_image.recall_at_1 == pytest.approx(60)
    assert result.text_to_image.recall_at_5 == 100
    assert result.text_to_image.median_rank == 1
    # i2t: a: its own two score 1, "red thing" of c ties: rank 1. b the same with one tie: 1.
    # c: all score 0, three competitors tie: 1 + 3 // 2 = 2.
    assert result.image_to_text.recall_at_1 == pytest.approx(200 / 3)
    assert result.image_to_text.recall_at_10 == 100
    assert seen[-1] == Progress("captions", 5, 5)
    assert Progress("encoding", 3, 3) in seen


def test_split_takes_only_the_images_it_names(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue", "c.png": "green", "uncaptioned.png": "red"},
        "image,caption\na.png,red\nb.png,red wrong\nc.png,green\n",
    )
    split = tmp_path / "test.txt"
    split.write_text("c.png\n\n a.png \na.png\nuncaptioned.png\n")
    result = evaluate(folder, ColourEncoder(), split=split)
    assert (result.images, result.captions) == (2, 2)
    assert result.text_to_image.recall_at_1 == 100
    assert [(failed.path.name, failed.error) for failed in result.left_out] == [
        ("uncaptioned.png", "it has no caption in captions.csv")
    ]


def test_pictures_that_are_gone_or_broken_are_left_out_and_named(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        {"a.png": "red", "b.png": "blue"},
        "image,caption\na.png,red\ngone.png,red\nbroken.png,blue\nb.png,blue\n",
        name="captions.txt",
    )
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    result = evaluate(folder, ColourEncoder())
    assert (result.images, result.captions) == (2, 2)
    assert result.image_to_text.recall_at_1 == 100
    assert [failed.path.name for failed in result.left_out] == ["gone.png", "broken.png"]
    assert all(failed.error for failed in result.left_out)


def test_order_survives_batches_and_threads(tmp_path: Path) -> None:
    names = list(COLOURS)
    pictures = {f"{number:02}.png": names[number % 4] for number in range(23)}
    table = "image,caption\n" + "".join(f"{file},{colour}\n" for file, colour in pictures.items())
    result = evaluate(folder_with(tmp_path, pictures, table), ColourEncoder())
    # Every colour occurs 5 or 6 times; equal pictures tie, and nothing else comes between: ranks are 3.
    assert result.text_to_image.median_rank == 3
    assert result.text_to_image.recall_at_5 == 100


def test_limits_are_kept(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    with pytest.raises(UsageError, match="can be used, the first because"):
        evaluate(folder, ColourEncoder(), limits=Limits(max_megapixels=0.0001))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "captions.csv").unlink(), "needs a folder images/ and a table"),
        (lambda folder: (folder / "images").rename(folder / "pictures"), "needs a folder images/ and a table"),
        (lambda folder: (folder / "images" / "a.png").unlink(), "None of the images"),
        (lambda folder: (folder / "captions.csv").write_text("image,caption\n"), "None of the images"),
    ],
)
def test_unusable_folders_say_what_is_needed(tmp_path: Path, break_it: Any, message: str) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    break_it(folder)
    with pytest.raises(UsageError, match=message):
        evaluate(folder, ColourEncoder())


def test_unusable_splits_say_what_is_needed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"a.png": "red"}, "image,caption\na.png,red\n")
    split = tmp_path / "split.txt"
    with pytest.raises(UsageError, match="cannot be read"):
        evaluate(folder, ColourEncoder(), split=split)
    split.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        evaluate(folder, ColourEncoder(), split=split)
    split.write_text("other.png\n")
    with pytest.raises(UsageError, match="No image that"):
        evaluate(folder, ColourEncoder(), split=split)
