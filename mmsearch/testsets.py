"""What a model is measured on: pictures, what is asked about them, and which answers are right.

In: a folder that someone prepared, or a collection as it is. Out: a `Captioned` set (each text belongs to one
picture) or a `Labelled` set (each label to many).

    folder       `images/` with captions.csv or captions.txt; or labels.csv (image,label); or a subfolder for each label
    collection   captions from wherever they came; else the names of folders, as far as they say something: people
                 file pictures under `Rome 2019`, but cameras file them under `100CANON`
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmsearch import captions, files
from mmsearch.catalog import samples
from mmsearch.errors import UsageError
from mmsearch.types import FailedFile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

Source = Literal["captions", "folders"]

LEAST_CAPTIONED = 10  # fewer pictures with a caption of their own say nothing about a model
LEAST_IN_FOLDER = 5  # pictures that a folder needs to be a label
MOST_CANDIDATES = 100_000  # pictures that are ranked for each query
MOST_ASKED = 5_000  # captioned pictures whose captions are asked for; their R@1 is sure to about 1.5 points

# What folders are called for want of anything better, by people, cameras and programs.
_SAYS_NOTHING = frozenset(
    """album albums all archive backup bilder camera captures cards collection copy data dataset dcim default digital
    download downloads edit edited edits export exported exports folder fotos galerie gallery image images img imgs
    import imported imports inbox internal jpeg jpegs jpg jpgs library masters media misc miscellaneous more movies my
    neu new old original originals other others phone photo photos phototheque pic pics picture pictures png pngs
    preview previews private public raw raws roll saved scan scanned scans sdcard shared sonstiges sorted storage temp
    test testing thumb thumbnails thumbs tmp todo train training unnamed unsorted untitled upload uploads val valid
    validation various verschiedenes video videos web webp january february march april may june july august september
    october november december jan feb mar apr jun jul aug sep sept oct nov dec st nd rd th of the and from part
    vol""".split()  # noqa: SIM905 - words read better so
)
# DCIM's own folders (100CANON, 101_PANA), and what cameras begin file names with.
_CAMERA = re.compile(
    r"\d{3}[a-z0-9_]{5}|(?:img|dsc|dscn|dscf|dsci|imgp|cimg|pict|sam|gopr|pxl|mvi|vid|p)[_-]?\d*", re.I
)


@dataclass(frozen=True, slots=True)
class Captioned:
    """Texts that each belong to one picture. about: one line for people.

    pictures (n): paths, or ids of a collection; those without a text are only there to be confused with.
    texts (t); owners (t,): the row of each text's picture. captions (t): ids in the collection; () for folders.
    """

    about: str
    pictures: tuple[Any, ...]
    texts: tuple[str, ...]
    owners: NDArray[np.int64]
    captions: tuple[int, ...] = ()

    def only(self, rows: Sequence[int]) -> Captioned:
        """The same set with these pictures alone."""
        place = {row: number for number, row in enumerate(rows)}
        kept = [text for text, owner in enumerate(self.owners.tolist()) if owner in place]
        return Captioned(
            self.about,
            tuple(self.pictures[row] for row in rows),
            tuple(self.texts[text] for text in kept),
            np.array([place[int(self.owners[text])] for text in kept], np.int64),
            tuple(self.captions[text] for text in kept) if self.captions else (),
        )


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels that each belong to many pictures: right (t, n) says to which. Fields as in `Captioned`."""

    about: str
    pictures: tuple[Any, ...]
    texts: tuple[str, ...]
    right: NDArray[np.bool_]

    def only(self, rows: Sequence[int]) -> Labelled:
        """The same set with these pictures alone, and the labels that still have one."""
        right = self.right[:, list(rows)]
        kept = np.flatnonzero(right.any(axis=1)).tolist()
        texts = tuple(self.texts[label] for label in kept)
        return Labelled(self.about, tuple(self.pictures[row] for row in rows), texts, right[kept])


# --- a folder -----------------------------------------------------------------------------------------------------


def from_folder(folder: Path, split: Path | None) -> tuple[Captioned | Labelled, list[FailedFile]]:
    """-> the set, and what the split names but the folder's table does not. Files are not opened here.

    UsageError: the folder is none of the three kinds, a table or the split cannot be used.
    """
    table = next((t for name in ("captions.csv", "captions.txt") if (t := folder / name).is_file()), None)
    if table is not None and (folder / "images").is_dir():
        named, texts, what = _grouped(captions.read_table(table)), f"the captions of {folder}", "caption"
    elif (folder / "labels.csv").is_file():
        table = folder / "labels.csv"
        named, texts, what = _grouped(_labels(table)), f"the labels of {folder}", "label"
    else:
        table = folder
        named, texts, what = _grouped(_subfolders(folder)), f"the subfolders of {folder} as labels", "label"
    left_out: list[FailedFile] = []
    pictures = folder / "images" if table != folder and (folder / "images").is_dir() else folder
    if split is not None:
        wanted = names_in(split)
        without = [name for name in wanted if name not in named]
        if len(without) == len(wanted):
            raise UsageError(f"No image that {split} names has a {what} in {table}; it needs one image name a line.")
        left_out = [FailedFile(pictures / name, f"it has no {what} in {table.name}") for name in without]
        named = {name: named[name] for name in wanted if name in named}
        texts += f", those of {split.name}"
    paths = tuple(pictures / name for name in named)
    if what == "caption":
        owners = np.repeat(np.arange(len(named)), [len(own) for own in named.values()])
        return Captioned(texts, paths, tuple(text for own in named.values() for text in own), owners), left_out
    return _labelled(texts, paths, list(named.values())), left_out


def _grouped(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Texts by image name, in the order of the table."""
    named: dict[str, list[str]] = {}
    for name, text in rows:
        named.setdefault(name, []).append(text)
    return named


def _labels(table: Path) -> list[tuple[str, str]]:
    """(image, label as words) of each row of labels.csv."""
    try:
        reader = csv.DictReader(
            io.StringIO(table.read_text(encoding="utf-8-sig", errors="surrogateescape"), newline="")
        )
        rows = [(reader.line_num, row.get("image"), row.get("label")) for row in reader]
    except OSError as error:
        raise UsageError(f"The labels in {table} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise UsageError(
            f"{table}, line {reader.line_num}: {error}; expected is CSV with the columns image,label."
        ) from error
    wrong = next(
        (line for line, name, label in rows if not name or not label or not label.strip()), 1 if not rows else 0
    )
    if wrong:
        raise UsageError(f"{table}, line {wrong}: expected are the columns image,label, both filled.")
    return [(name or "", as_words(label or "")) for _, name, label in rows]


def _subfolders(folder: Path) -> list[tuple[str, str]]:
    """(relative path, name of the first folder) of each picture below a subfolder that holds enough of them."""
    found = [
        (os.fsdecode(one.relative), as_words(os.fsdecode(one.relative.partition(b"/")[0])))
        for one in files.walk(folder, on_unreadable=lambda _path, _why: None)
        if b"/" in one.relative and files.sniff(folder / os.fsdecode(one.relative))
    ]
    enough = {label for label, number in Counter(label for _, label in found).items() if number >= LEAST_IN_FOLDER}
    if len(enough) < 2:
        raise UsageError(
            f"{folder} cannot be evaluated: it needs a folder images/ and a table captions.csv or captions.txt "
            "with the columns image,caption; or labels.csv with image,label; or two subfolders, named by what they "
            f"show, with {LEAST_IN_FOLDER} pictures each."
        )
    return [(name, label) for name, label in found if label in enough]


def names_in(split: Path) -> list[str]:
    """The image names of a split: its non-empty lines, each once. Raises UsageError where there are none."""
    try:
        lines = split.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"The split {split} cannot be read: {error.strerror}.") from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UsageError(f"The split {split} is empty; it needs one image name a line.")
    return names


def _labelled(about: str, pictures: tuple[Any, ...], labels_of: Sequence[Iterable[str]]) -> Labelled:
    labels = sorted({label for own in labels_of for label in own})
    if len(labels) < 2:
        raise UsageError(f"{about[:1].upper()}{about[1:]} are all the same; it takes two to tell pictures apart.")
    row = {label: number for number, label in enumerate(labels)}
    right = np.zeros((len(labels), len(pictures)), bool)
    for column, own in enumerate(labels_of):
        right[[row[label] for label in own], column] = True
    return Labelled(about, pictures, tuple(labels), right)


# --- a collection -------------------------------------------------------------------------------------------------


def from_collection(connection: Connection, images: Sequence[int], source: Source | None) -> Captioned | Labelled:
    """images: those with a vector in every space that is measured, by sha256. source: None takes captions where there
    are enough of them, else folders.

    A caption that stands at several pictures (`OLYMPUS DIGITAL CAMERA`) singles out none and is left out.
    UsageError: there is too little to build a set of.
    """
    candidates = tuple(images[:MOST_CANDIDATES])
    part = f"{len(candidates):,} of {len(images):,} pictures; " if len(candidates) < len(images) else ""
    captioned, too_few = _captions(connection, candidates, part)
    if source == "captions" or (source is None and captioned is not None):
        if captioned is None:
            raise UsageError(f"No test set can be built from captions: {too_few}. {_REMEDY}")
        return captioned
    labelled, too_few_folders = _folders(connection, candidates, part)
    if labelled is None:
        why = too_few_folders if source == "folders" else f"{too_few}; {too_few_folders}"
        raise UsageError(f"No test set can be built from this collection: {why}. {_REMEDY}")
    return labelled


_REMEDY = (
    "Bring captions along with `mmsearch index --captions TABLE`, or measure a folder of your own with "
    "`mmsearch eval DIR`."
)


def _captions(connection: Connection, candidates: Sequence[int], part: str) -> tuple[Captioned | None, str]:
    """-> the set, or None and why there is none."""
    row = {image: number for number, image in enumerate(candidates)}
    known = [(row[image], number, text) for image, number, text in samples.captions(connection) if image in row]
    holders: dict[str, set[int]] = {}
    for owner, _, text in known:
        holders.setdefault(text.casefold(), set()).add(owner)
    own = [one for one in known if len(holders[one[2].casefold()]) == 1]
    asked = sorted({owner for owner, _, _ in own})
    if len(asked) < LEAST_CAPTIONED:
        return None, f"pictures with a caption of their own: {len(asked)}, where {LEAST_CAPTIONED} are needed"
    some = set(asked[:MOST_ASKED])
    own = sorted(one for one in own if one[0] in some)
    about = f"the captions of the collection ({part}{len(some):,} captioned pictures"
    about += f" of {len(asked):,}" if len(some) < len(asked) else ""
    shared = sum(len(which) > 1 for which in holders.values())
    about += f"; {shared:,} left out, for several pictures share the text)" if shared else ")"
    owners = np.array([owner for owner, _, _ in own], np.int64)
    texts, numbers = tuple(text for _, _, text in own), tuple(number for _, number, _ in own)
    return Captioned(about, tuple(candidates), texts, owners, numbers), ""


def _folders(connection: Connection, candidates: Sequence[int], part: str) -> tuple[Labelled | None, str]:
    """-> the set, or None and why there is none."""
    labels_of: dict[int, set[str]] = {image: set() for image in candidates}
    for image, root, relative in samples.places(connection):
        label = folder_label(os.fsdecode(root), os.fsdecode(relative))
        if image in labels_of and label:
            labels_of[image].add(label)
    sizes = Counter(label for own in labels_of.values() for label in own)
    enough = {label for label, number in sizes.items() if number >= LEAST_IN_FOLDER}
    if len(enough) < 2:
        found = f"folders with {LEAST_IN_FOLDER} pictures and a name that says what they show: {len(enough)}"
        return None, f"{found}, where 2 are needed"
    kept = {image: own & enough for image, own in labels_of.items() if own & enough}
    about = f"the folder names of the collection ({part}{len(enough):,} folders)"
    return _labelled(about, tuple(kept), list(kept.values())), ""


def folder_label(root: str, relative: str) -> str | None:
    """What the nearest telling folder above a file is called, in words; the root's own name comes last.

    ("/home/me/Pictures", "Rome 2019/100CANON/IMG_1.jpg") -> "rome"; None where no name tells anything.
    """
    *folders, _ = relative.split("/")
    for name in (*reversed(folders), os.path.basename(root)):
        if _CAMERA.fullmatch(name):
            continue
        words = [word for word in " ".join(_words(name)).replace("-", " ").split() if word not in _SAYS_NOTHING]
        if any(len(word) > 1 or not word.isascii() for word in words):
            return " ".join(_words(name))
    return None


def as_words(label: str) -> str:
    """`Hot_air_balloon` -> `hot air balloon`; a label without letters stays as it is."""
    return " ".join(_words(label)) or label.strip()


def _words(name: str) -> list[str]:
    """Words in small letters, hyphens kept as in `t-shirt`; numbers and dates are none."""
    parts = (word.split("-") for word in re.split(r"[\s_.,()\[\]&+]+", name.lower()))
    words = ("-".join(part for part in word if re.search(r"[^\W\d_]", part)) for word in parts)
    return [word for word in words if word]
