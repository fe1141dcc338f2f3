"""Where supervision comes from: pictures and what is said about them, read from one source.

    folder       laid out as for `mmsearch eval`: images/ with captions.csv or captions.txt; labels.csv; a subfolder
                 for each label. Files train.txt, dev.txt, test.txt in it (one image name a line) are its splits
    shards       webdataset .tar files: one, a folder of them, or a pattern such as `shards/*.tar`
    collection   its name or folder: captions, else tags, else folder names (collected.py)

Every picture is read and decoded once, small, so that what is broken is known before training begins; those of a
collection were when they were indexed. What cannot be used is listed and left out. Equal files are one picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from mmsearch import files, testsets
from mmsearch.decode import decode
from mmsearch.errors import PictureError, UsageError
from mmsearch.settings import Limits, collection_folder
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training import collected, shards
from mmsearch.training.ahead import ahead
from mmsearch.training.picture import Picture, Side, file_bytes, plain
from mmsearch.types import FailedFile, Progress

OnProgress = Callable[[Progress], None]

LEAST = 10  # pictures; with fewer there is nothing to hold out
GLANCE = 32  # pixels: JPEGs are decoded at an eighth of their size to see whether they are whole
_WAITING = 256  # pictures that are looked at ahead
_SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Supervised:
    """about: one line for people. pictures: each content once, each with something said about it.
    left_out: what was named but cannot be used. notices: lines worth showing."""

    about: str
    pictures: tuple[Picture, ...]
    left_out: tuple[FailedFile, ...] = ()
    notices: tuple[str, ...] = ()


def read(source: str | Path, *, on_progress: OnProgress | None = None) -> Supervised:
    """One source of the three kinds. Raises UsageError with everything that is wrong with it, CollectionError."""
    wrong: list[str] = []
    notices: list[str] = []
    about, found, left_out = _found(source, wrong)
    pictures: list[Picture] = []
    for number, looked_at in enumerate(ahead(_looked_at, found, _WAITING), start=1):
        if isinstance(looked_at, Picture):
            pictures.append(looked_at)
        else:
            left_out.append(looked_at)
        if on_progress is not None:
            on_progress(Progress("scanning", number, len(found)))
    silent = [picture for picture in pictures if not picture.said]
    left_out += [FailedFile(picture.place, "nothing is said about it: no caption, no label") for picture in silent]
    kept = _each_once([picture for picture in pictures if picture.said])
    copies = len(pictures) - len(silent) - len(kept)
    if copies:
        notices.append(f"Equal files among {about}: {copies:,}; they count once, with all that is said of them.")
    if found:
        wrong += _too_little(about, kept, len(found), left_out)
    if wrong:
        raise UsageError(" ".join(wrong))
    if all(label.isdecimal() for picture in kept for _, label in picture.said):
        notices.append(f"{about[:1].upper()}{about[1:]} are numbers; names would tell a text tower what they mean.")
    return Supervised(about, tuple(kept), tuple(left_out), tuple(notices))


def _found(source: str | Path, wrong: list[str]) -> tuple[str, list[Picture], list[FailedFile]]:
    """The source by its kind -> one line about it, pictures not yet read, what is left out. Mistakes go to `wrong`."""
    path = Path(source).expanduser()
    try:
        collection = path if path.exists() or not str(source) else collection_folder(str(source))
        if (collection / os.fsdecode(files.CATALOG_FILE)).is_file():
            return collected.pictures_of(collection.absolute(), LEAST)
        tars = _tars(path)
        if tars:
            found, left_out = shards.pictures_of(tars)
            what = "captions" if any(picture.captions for picture in found) else "labels"
            return f"the {what} of {path}", found, left_out
        if path.is_dir():
            return _folder(path, wrong)
        wrong.append(f"{source} cannot be trained on: it is no folder, no .tar file and no collection of that name.")
    except UsageError as error:
        wrong.append(str(error))
    return str(source), [], []


def _tars(path: Path) -> list[Path]:
    """The shards that a path means: itself, those in a folder without tables, those that match its last part."""
    if path.is_dir():
        if any((path / name).exists() for name in ("captions.csv", "captions.txt", "labels.csv")):
            return []
        return sorted(one for one in path.iterdir() if _is_tar(one))
    if path.is_file():
        return [path]
    return sorted(one for one in path.parent.glob(path.name) if _is_tar(one)) if "*" in path.name else []


def _is_tar(path: Path) -> bool:
    """Compressed ones too, so that they are refused by name."""
    return path.name.lower().endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"))


def _folder(folder: Path, wrong: list[str]) -> tuple[str, list[Picture], list[FailedFile]]:
    whole, left_out = testsets.from_folder(folder, None)
    sides: dict[Path, Side] = {}
    twice = 0
    listed = [side for side in _SIDES if (folder / f"{side}.txt").is_file()]
    for side in listed:
        try:
            part, unknown = testsets.from_folder(folder, folder / f"{side}.txt")
        except UsageError as error:
            wrong.append(str(error))
            continue
        left_out += unknown
        twice += sum(path in sides for path in part.pictures)
        sides |= dict.fromkeys(part.pictures, side)
    if twice:
        wrong.append(
            f"{twice} images stand in more than one of {', '.join(f'{side}.txt' for side in listed)} in {folder}; "
            "each may stand in one."
        )
    images = folder / "images" if (folder / "images").is_dir() else folder
    pictures = []
    for path, captions, labels in _said(whole):
        if "train" in listed and path not in sides:
            continue  # the folder says what to train on, and this is not it
        key = path.relative_to(images if images in path.parents else folder).as_posix()
        pictures.append(Picture(key, path, "", partial(file_bytes, path), captions, labels, sides.get(path)))
    return whole.about, pictures, left_out


def _said(test: Captioned | Labelled) -> Iterable[tuple[Path, tuple[str, ...], tuple[str, ...]]]:
    """(path, captions, labels) of each picture."""
    own: list[list[str]] = [[] for _ in test.pictures]
    if isinstance(test, Captioned):
        for text, owner in zip(test.texts, test.owners.tolist(), strict=True):
            own[owner].append(text)
        return [(path, tuple(dict.fromkeys(said)), ()) for path, said in zip(test.pictures, own, strict=True)]
    for label, row in zip(test.texts, test.right, strict=True):
        for picture in row.nonzero()[0].tolist():
            own[picture].append(label)
    return [(path, (), tuple(shown)) for path, shown in zip(test.pictures, own, strict=True)]


def _looked_at(picture: Picture) -> Picture | FailedFile:
    """With the sha256 of its bytes, where these are a whole picture."""
    if picture.content:
        return picture
    try:
        data = picture.read()
        decode(data, target=GLANCE, limits=Limits())
    except PictureError as error:
        return FailedFile(picture.place, str(error))
    return replace(picture, content=hashlib.sha256(data).hexdigest())


def _each_once(pictures: Iterable[Picture]) -> list[Picture]:
    """Equal contents become one picture, with the first key in order and all that is said; test before dev before
    train, so that nothing held out is trained on."""
    once: dict[str, Picture] = {}
    for picture in pictures:
        known = once.get(picture.content)
        if known is not None:
            first = min(known, picture, key=lambda one: one.key)
            captions = tuple(dict.fromkeys((*known.captions, *picture.captions)))
            labels = tuple(dict.fromkeys((*known.labels, *picture.labels)))
            side = next((one for one in reversed(_SIDES) if one in (known.split, picture.split)), None)
            picture = replace(first, captions=captions, labels=labels, split=side)
        once[picture.content] = picture
    return list(once.values())


def _too_little(about: str, kept: list[Picture], found: int, left_out: list[FailedFile]) -> list[str]:
    """What makes a set useless, one line each."""
    wrong = []
    why = f" (the first, {left_out[0].path}: {left_out[0].error})" if left_out else ""
    if len(kept) < LEAST:
        wrong.append(
            f"Training needs at least {LEAST} different pictures with a text; {about} have {len(kept)}: {found:,} were "
            f"found, {len(left_out):,} left out{why}. Add pictures, or mend those that were left out."
        )
    captions = {plain(text) for picture in kept for text in picture.captions}
    labels = {label for picture in kept for label in picture.labels}
    if len(kept) > 1 and len(captions) == 1 and all(picture.captions for picture in kept):
        one = next(iter(captions))
        wrong.append(f"All pictures of {about} have the same caption, {one!r}; it takes two to tell pictures apart.")
    if len(kept) > 1 and len(labels) == 1 and not captions:
        one = next(iter(labels))
        wrong.append(f"All pictures of {about} have the same label, {one!r}; it takes two to tell pictures apart.")
    return wrong
