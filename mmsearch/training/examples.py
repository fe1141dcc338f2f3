"""Where supervision comes from: pictures and what is said about them, read from one source.

    folder       laid out as for `mmsearch eval`: images/ with captions.csv or captions.txt; labels.csv; a subfolder
                 for each label; with train.txt, dev.txt, test.txt where they are (folders.py)
    shards       webdataset .tar files: one, a folder of them, or a pattern such as `shards/*.tar`
    collection   its name or folder: captions, else tags, else folder names (collected.py)

Every picture is read and decoded once, small, so that what is broken is known before training begins; those of a
collection were when they were indexed. What cannot be used is listed and left out. Equal files are one picture.

Pictures about which nothing is said are left out, too, but for recipes that learn from pictures alone, or begin so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from mmsearch import files
from mmsearch.decode import decode
from mmsearch.errors import PictureError, UsageError
from mmsearch.settings import Limits, collection_folder
from mmsearch.training import collected, folders, shards
from mmsearch.training.ahead import ahead
from mmsearch.training.picture import Picture, Side, Wanted, plain
from mmsearch.types import FailedFile, Progress

OnProgress = Callable[[Progress], None]

LEAST = 10  # pictures; with fewer there is nothing to hold out
GLANCE = 32  # pixels: JPEGs are decoded at an eighth of their size to see whether they are whole
_WAITING = 256  # pictures that are looked at ahead
_SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Supervised:
    """about: one line for people. pictures: each content once, each with something said about it.
    left_out: what was named but cannot be used. notices: lines worth showing. silent: pictures about which nothing is
    said, where they are wanted, under each of their names and on all sides, so that copies of what is held out are
    known."""

    about: str
    pictures: tuple[Picture, ...]
    left_out: tuple[FailedFile, ...] = ()
    notices: tuple[str, ...] = ()
    silent: tuple[Picture, ...] = ()


def read(source: str | Path, *, wanted: Wanted = "words", on_progress: OnProgress | None = None) -> Supervised:
    """One source of the three kinds. Raises UsageError with everything that is wrong with it, CollectionError."""
    wrong: list[str] = []
    notices: list[str] = []
    about, found, left_out = _found(source, wanted, wrong)
    pictures: list[Picture] = []
    for number, looked_at in enumerate(ahead(_looked_at, found, _WAITING), start=1):
        if isinstance(looked_at, Picture):
            pictures.append(looked_at)
        else:
            left_out.append(looked_at)
        if on_progress is not None:
            on_progress(Progress("scanning", number, len(found)))
    mute = [picture for picture in pictures if not picture.said]
    if wanted == "words":
        left_out += [FailedFile(picture.place, "nothing is said about it: no caption, no label") for picture in mute]
        pictures, mute = [picture for picture in pictures if picture.said], []
    kept = _each_once(picture for picture in pictures if picture.said)
    spoken_of = {picture.content for picture in kept}
    different = len({picture.content for picture in pictures})
    silent = [picture for picture in mute if picture.content not in spoken_of]
    copies = len(pictures) - different
    if copies:
        notices.append(f"Equal files among {about}: {copies:,}; they count once, with all that is said of them.")
    if found or not wrong:
        if wanted == "pictures" or (wanted == "both" and not kept):
            wrong += _too_few(about, "", different, len(found), left_out)
        else:
            wrong += _too_little(about, kept, len(found), left_out)
    if wrong:
        raise UsageError(" ".join(wrong))
    if kept and wanted != "pictures" and all(label.isdecimal() for picture in kept for _, label in picture.said):
        notices.append(f"{about[:1].upper()}{about[1:]} are numbers; names would tell a text tower what they mean.")
    return Supervised(about, tuple(kept), tuple(left_out), tuple(notices), tuple(silent))


def _found(source: str | Path, wanted: Wanted, wrong: list[str]) -> tuple[str, list[Picture], list[FailedFile]]:
    """The source by its kind -> one line about it, pictures not yet read, what is left out. Mistakes go to `wrong`."""
    path = Path(source).expanduser()
    try:
        collection = path if path.exists() or not str(source) else collection_folder(str(source))
        if (collection / os.fsdecode(files.CATALOG_FILE)).is_file():
            return collected.pictures_of(collection.absolute(), LEAST, wanted)
        tars = _tars(path)
        if tars:
            found, left_out = shards.pictures_of(tars)
            labelled = any(picture.labels for picture in found)
            what = "captions" if any(picture.captions for picture in found) else "labels" if labelled else "pictures"
            return f"the {what} of {path}", found, left_out
        if path.is_dir():
            return folders.pictures_of(path, wanted, wrong)
        wrong.append(f"{source} cannot be trained on: it is no folder, no .tar file and no collection of that name.")
    except UsageError as error:
        wrong.append(str(error))
    return str(source), [], []


def _tars(path: Path) -> list[Path]:
    """The shards that a path means: itself, those in a folder without tables, those that match its last part."""
    if path.is_dir():
        if any((path / name).exists() for name in folders.TABLES):
            return []
        return sorted(one for one in path.iterdir() if _is_tar(one))
    if path.is_file():
        return [path]
    return sorted(one for one in path.parent.glob(path.name) if _is_tar(one)) if "*" in path.name else []


def _is_tar(path: Path) -> bool:
    """Compressed ones too, so that they are refused by name."""
    return path.name.lower().endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"))


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


def _too_few(about: str, which: str, kept: int, found: int, left_out: list[FailedFile]) -> list[str]:
    """One line, where there are."""
    if kept >= LEAST:
        return []
    why = f" (the first, {left_out[0].path}: {left_out[0].error})" if left_out else ""
    return [
        f"Training needs at least {LEAST} different pictures{which}; {about} have {kept}: {found:,} were found, "
        f"{len(left_out):,} left out{why}. Add pictures, or mend those that were left out."
    ]


def _too_little(about: str, kept: list[Picture], found: int, left_out: list[FailedFile]) -> list[str]:
    """What makes a set useless, one line each."""
    wrong = _too_few(about, " with a text", len(kept), found, left_out)
    captions = {plain(text) for picture in kept for text in picture.captions}
    labels = {label for picture in kept for label in picture.labels}
    if len(kept) > 1 and len(captions) == 1 and all(picture.captions for picture in kept):
        one = next(iter(captions))
        wrong.append(f"All pictures of {about} have the same caption, {one!r}; it takes two to tell pictures apart.")
    if len(kept) > 1 and len(labels) == 1 and not captions:
        one = next(iter(labels))
        wrong.append(f"All pictures of {about} have the same label, {one!r}; it takes two to tell pictures apart.")
    return wrong
