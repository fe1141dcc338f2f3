"""A collection as a training set: what it knows about its pictures, and where they lie.

In: the folder of a collection. Out: pictures with captions; where there are too few, with the tags that people gave
(what zero-shot classification found says nothing new to a model); else with the names of their folders. Where they are
wanted, also those about which nothing is said so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from mmsearch import testsets
from mmsearch.catalog import samples
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.samples import Place
from mmsearch.catalog.tags import PERSON
from mmsearch.errors import UsageError
from mmsearch.training.picture import Picture, Wanted, file_bytes
from mmsearch.types import FailedFile

Words = dict[int, list[str]]  # image -> what is said


def pictures_of(folder: Path, least: int, wanted: Wanted) -> tuple[str, list[Picture], list[FailedFile]]:
    """-> one line about it, pictures by sha256, and those whose files are away or changed. least: how many pictures
    captions, tags or folders must speak of. Pictures are not read here; their content is what the catalog says.

    Raises UsageError where nothing says enough, CollectionError.
    """
    catalog = Catalog(folder, create=False)
    try:
        with catalog.reading() as connection:
            captions = _grouped((image, text) for image, _, text in samples.captions(connection))
            tags = _grouped(samples.tags(connection, PERSON))
            folders = _folders(samples.places(connection))
            places: dict[int, list[Place]] = {}
            for place in samples.files(connection):
                places.setdefault(place.image, []).append(place)
    finally:
        catalog.close()
    what, words = _chosen(folder, {"captions": captions, "tags": tags, "folder names": folders}, least, wanted)
    made: list[Picture] = []
    left_out: list[FailedFile] = []
    images = words.keys() if wanted == "words" else words.keys() | places.keys()
    for image in sorted(images, key=lambda one: places[one][0].sha256 if one in places else b""):
        if image not in places:
            continue  # added by key alone: the collection keeps no file of it
        there = next((place for place in places[image] if _as_indexed(place)), None)
        if there is None:
            gone = Path(os.fsdecode(places[image][0].path))
            left_out.append(FailedFile(gone, "it is gone or has changed; run `mmsearch index` again"))
            continue
        path = Path(os.fsdecode(there.path))
        read = partial(file_bytes, path)
        said = tuple(dict.fromkeys(words.get(image, ())))
        spoken, shown = (said, ()) if what == "captions" else ((), said)
        made.append(Picture(os.fsdecode(there.relative), path, there.sha256.hex(), read, spoken, shown))
    return f"the {what} of the collection {folder}", made, left_out


def _chosen(folder: Path, offered: dict[str, Words], least: int, wanted: Wanted) -> tuple[str, Words]:
    """The first that speaks of enough pictures, and in more than one way; nothing, where words need not be."""
    for what, words in offered.items():
        if len(words) >= least and len({text for own in words.values() for text in own}) > 1:
            return what, words
    if wanted != "words":
        return "pictures", {}
    counts = ", ".join(f"{what} {len(words)}" for what, words in offered.items())
    raise UsageError(
        f"The collection {folder} cannot be trained on: at least {least} pictures need words that are not all the "
        f"same; pictures with {counts}. Bring captions along with `mmsearch index --captions TABLE`."
    )


def _folders(places: Iterable[tuple[int, bytes, bytes]]) -> Words:
    """Labels as `mmsearch eval` takes them: folders whose names say something and that hold enough pictures."""
    named = [
        (image, label)
        for image, root, relative in places
        if (label := testsets.folder_label(os.fsdecode(root), os.fsdecode(relative)))
    ]
    sizes = Counter(label for _, label in set(named))
    return _grouped((image, label) for image, label in named if sizes[label] >= testsets.LEAST_IN_FOLDER)


def _grouped(rows: Iterable[tuple[int, str]]) -> Words:
    words: Words = {}
    for image, text in rows:
        words.setdefault(image, []).append(text)
    return words


def _as_indexed(place: Place) -> bool:
    try:
        found = os.stat(place.path)
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (place.size, place.mtime_ns)
