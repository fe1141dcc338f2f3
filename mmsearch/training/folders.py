"""A folder as a training set: laid out as for `mmsearch eval`, divided by train.txt, dev.txt and test.txt in it, where
they are (one image name a line).

In: the folder, and which of its pictures are wanted. Out: pictures that were not yet read. Those about which nothing is
said lie anywhere in the folder; where there is a train.txt, only those that it names are meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from mmsearch import files, testsets
from mmsearch.errors import UsageError
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training.picture import Picture, Side, Wanted, file_bytes
from mmsearch.types import FailedFile

TABLES = ("captions.csv", "captions.txt", "labels.csv")

Words = dict[Path, tuple[tuple[str, ...], tuple[str, ...]]]  # path -> captions, labels


def pictures_of(folder: Path, wanted: Wanted, wrong: list[str]) -> tuple[str, list[Picture], list[FailedFile]]:
    """-> one line about it, pictures, what its splits name but its table does not. Mistakes in splits go to `wrong`.

    Raises UsageError where it is none of the kinds, or a table cannot be used.
    """
    about, words = _words(folder, wanted)
    listed: list[Side] = [side for side in get_args(Side) if (folder / f"{side}.txt").is_file()]
    sides, left_out = _sides(folder, listed, wanted if words else "pictures", wrong)
    meant = dict(words)
    if wanted != "words":
        for path in (*_files(folder), *sides):  # what is named and not there is told when it is read
            meant.setdefault(path, ((), ()))
    bases = (_images(folder), folder)
    pictures = []
    for path, (captions, labels) in meant.items():
        if "train" in listed and path not in sides:
            continue  # the folder says what to train on, and this is not it
        key = next((path.relative_to(base) for base in bases if base in path.parents), path).as_posix()
        pictures.append(Picture(key, path, "", partial(file_bytes, path), captions, labels, sides.get(path)))
    return about, pictures, left_out


def _images(folder: Path) -> Path:
    """Where the names of tables and splits begin."""
    return folder / "images" if (folder / "images").is_dir() else folder


def _words(folder: Path, wanted: Wanted) -> tuple[str, Words]:
    """One line about it, and what is said; nothing, where that is no mistake."""
    try:
        whole, _ = testsets.from_folder(folder, None)
    except UsageError:
        if wanted == "words" or any((folder / name).is_file() for name in TABLES):
            raise
        return f"the pictures of {folder}", {}
    return whole.about, dict(_said(whole))


def _said(test: Captioned | Labelled) -> Iterator[tuple[Path, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """(path, (captions, labels)) of each picture."""
    own: list[list[str]] = [[] for _ in test.pictures]
    if isinstance(test, Captioned):
        for text, owner in zip(test.texts, test.owners.tolist(), strict=True):
            own[owner].append(text)
    else:
        for label, row in zip(test.texts, test.right, strict=True):
            for picture in row.nonzero()[0].tolist():
                own[picture].append(label)
    for path, said in zip(test.pictures, own, strict=True):
        texts = tuple(dict.fromkeys(said))
        yield path, (texts, ()) if isinstance(test, Captioned) else ((), texts)


def _files(folder: Path) -> Iterator[Path]:
    """Every picture in it."""
    for one in files.walk(folder, on_unreadable=lambda _path, _why: None):
        path = folder / os.fsdecode(one.relative)
        if files.sniff(path):
            yield path


def _sides(
    folder: Path, listed: Sequence[Side], wanted: Wanted, wrong: list[str]
) -> tuple[dict[Path, Side], list[FailedFile]]:
    """The side of what its splits name, and what has no text where one is needed: what is held out is measured on."""
    sides: dict[Path, Side] = {}
    left_out: list[FailedFile] = []
    twice = 0
    for side in listed:
        split = folder / f"{side}.txt"
        try:
            if wanted == "words" or (wanted == "both" and side != "train"):
                part, without = testsets.from_folder(folder, split)
                named = list(part.pictures)
                left_out += without
                if wanted == "both":  # not measured on; but neither they nor their copies are trained on
                    named += [one.path for one in without if one.path.is_file()]
            else:
                named = [_images(folder) / name for name in testsets.names_in(split)]
        except UsageError as error:
            wrong.append(str(error))
            continue
        twice += sum(path in sides for path in named)
        sides |= dict.fromkeys(named, side)
    if twice:
        wrong.append(
            f"{twice} images stand in more than one of {', '.join(f'{side}.txt' for side in listed)} in {folder}; "
            "each may stand in one."
        )
    return sides, left_out
