"""The map of a collection: a place for each image, near those that look alike, and words where they are at home.

    MapKeeper.build   vectors -> places (projecting.py), kept as `index/<space>/map.npz`
    MapKeeper.read    what was kept, as the collection is now
    zero_shot         words for a collection that has no tags

The file is derived: where it is missing, damaged or of another space it is as if there were none. Images that are gone
are left out; a few new ones stand among their nearest neighbours until the map is built again.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch.catalog import likeness
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.columns import Coded, ColumnReader, Columns, columns
from mmsearch.catalog.memory import remember
from mmsearch.catalog.read import SpaceRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.labels import label_bank, read_labels
from mmsearch.projecting import landmarks, project
from mmsearch.relevance import Calibration
from mmsearch.tagging import best_hits
from mmsearch.types import Progress

FORMAT = 1
# So many changes, as a share of the map, and it is built again; so many new images at most are placed without that,
# since each is compared with all others.
STALE_SHARE = 0.1
MOST_PLACED = 1000
NEIGHBOURS = 5
ROWS_AT_ONCE = 4096

Labels = list[tuple[str, float, float]]
LabelImages = Callable[[NDArray[np.float16]], Iterable[tuple[str, NDArray[np.int64]]]]


@dataclass(frozen=True, slots=True)
class MapLabel:
    """A word, and where on the map its images lie densest."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """ids: (n,) int64, images ascending. x, y: (n,) float32 from 0 to 1. method: how the places were found. labels: a
    few, none upon another. placed: how many of the images are new and stand among their neighbours for now."""

    ids: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    method: str
    labels: tuple[MapLabel, ...]
    placed: int

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class StoredMap:
    """What is kept of a map: vectors (n,) ascending, by their ids, and their places; labels where no tags are known."""

    fingerprint: str
    method: str
    vectors: NDArray[np.int64]
    places: NDArray[np.float32]
    labels: Labels


class MapKeeper:
    """The maps of a collection that is open."""

    def __init__(self, catalog: Catalog, reader: ColumnReader) -> None:
        self._catalog, self._reader = catalog, reader
        self._kept: dict[int, tuple[tuple[int, int] | None, StoredMap]] = {}  # with time and size of its file

    def read(self, space: SpaceRow) -> Map | None:
        """The map as the collection is now; None where there is none, or too much has changed since it was made."""
        path = _path(self._catalog.folder, space)
        stamp = _stamp(path)
        kept = self._kept.get(space.id)
        if kept is None or (stamp is not None and stamp != kept[0]):
            stored = _load(path, space)
            if stored is not None:
                kept = self._kept[space.id] = stamp, stored
        if kept is None:
            return None
        stored = kept[1]
        with self._reader.reading() as connection:
            return remember(connection, "map", stored, lambda: _as_it_is(connection, space, stored), most=1)

    def build(
        self,
        space: SpaceRow,
        label_images: LabelImages,
        on_progress: Callable[[Progress], None],
        cancel: Event,
    ) -> None:
        """Make the map anew and keep it, unless there are no images or it was cancelled. label_images: images, their
        rows -> words and the rows of those images that they fit; for a collection without tags."""
        on_progress(Progress("mapping"))
        with self._catalog.reading() as connection:
            images, rows = likeness.present_vectors(connection, space.id, space.dimension)
            vectors, owners = likeness.present_owners(connection, space.id)
        if not len(images):
            return
        found = project(rows, lambda done, total: on_progress(Progress("mapping", done, total)), cancel)
        if found is None:
            return
        places, method = found
        labels = landmarks(places, label_images(rows))
        by_vector = np.searchsorted(images, owners)  # places stand in the order of images so far
        made = StoredMap(space.fingerprint, method, vectors, places[by_vector], labels)
        path = _path(self._catalog.folder, space)
        with suppress(OSError):  # a collection that cannot be written keeps its map for as long as it is open
            _keep(path, made)
        self._kept[space.id] = _stamp(path), made


def zero_shot(
    catalog: Catalog,
    space: SpaceRow,
    encoder: Encoder,
    calibration: Calibration | None,
    on_progress: Callable[[Progress], None],
) -> LabelImages:
    """The labels that come along, each with the images that it is more likely than not to be right for."""

    def label_images(rows: NDArray[np.float16]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        def at_work(_: Progress) -> None:
            on_progress(Progress("mapping"))

        best = partial(best_hits, catalog, space, on_progress=at_work)
        bank = label_bank(encoder, read_labels(), calibration, best, on_progress=at_work)
        fitting: list[NDArray[np.int64]] = []  # rows of (label, image)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            likely = bank.probabilities(bank.scores(rows[start : start + ROWS_AT_ONCE].astype(np.float32)))
            if likely is None:
                return
            fitting.append(np.argwhere(likely.T > 0.5) + np.array([0, start]))
        for number, name in enumerate(bank.names):
            mine = [part[part[:, 0] == number, 1] for part in fitting]
            if sum(map(len, mine)):
                yield name, np.concatenate(mine)

    return label_images


def _as_it_is(connection: Connection, space: SpaceRow, stored: StoredMap) -> Map | None:
    now, images = likeness.present_owners(connection, space.id)
    new = np.setdiff1d(now, stored.vectors)
    kept = np.isin(stored.vectors, now)
    changes = len(new) + int((~kept).sum())
    if changes > STALE_SHARE * len(stored.vectors) or len(new) > MOST_PLACED:
        return None
    vectors, places = stored.vectors[kept], stored.places[kept]
    if len(new):
        vectors = np.concatenate([vectors, new])
        places = np.concatenate([places, _among_neighbours(connection, space, now, images, new, vectors, places)])
    order = np.argsort(vectors)  # both ascend now, so that each place stands where its vector stands
    by_image = np.argsort(images)
    ids, places = images[by_image], places[order][by_image]
    held = columns(connection)
    groups = list(_groups(held, ids, held.tags, held.tagged))
    if groups:
        labels = landmarks(places, groups)
    elif stored.labels:
        labels = stored.labels
    else:
        labels = landmarks(places, _groups(held, ids, _names(held.folders), held.file_images))
    words = tuple(MapLabel(*label) for label in labels)
    return Map(ids, places[:, 0].copy(), places[:, 1].copy(), stored.method, words, len(new))


def _among_neighbours(
    connection: Connection,
    space: SpaceRow,
    now: NDArray[np.int64],
    images: NDArray[np.int64],
    new: NDArray[np.int64],
    known: NDArray[np.int64],
    places: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(len(new), 2): in the middle of the nearest of those that have a place, which are the first of `known`."""
    owners, rows = likeness.present_vectors(connection, space.id, space.dimension)
    row_of = np.searchsorted(owners, images)  # of each vector in `now`
    theirs = row_of[np.searchsorted(now, known[: len(places)])]
    mine = rows[row_of[np.searchsorted(now, new)]].astype(np.float32)
    scores = np.empty((len(mine), 0), np.float32)
    nearest = np.empty((len(mine), 0), np.int64)  # of `places`
    for start in range(0, len(theirs), ROWS_AT_ONCE):
        block = rows[theirs[start : start + ROWS_AT_ONCE]].astype(np.float32)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(mine), len(block)))
        scores = np.concatenate([scores, mine @ block.T], axis=1)
        nearest = np.concatenate([nearest, numbers], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS]
        scores, nearest = np.take_along_axis(scores, best, axis=1), np.take_along_axis(nearest, best, axis=1)
    # Not the mean: of neighbours on two islands, none stands in the sea between.
    return np.asarray(np.median(places[nearest], axis=1), np.float32)


# --- labels -------------------------------------------------------------------------------------------------------


def _groups(
    held: Columns, ids: NDArray[np.int64], names: Coded, owners: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name -> rows of `ids` that have it. owners: the rows in `held.images` that the codes of `names` belong to."""
    there = np.isin(held.images[owners], ids) & (names.codes >= 0)
    rows, codes = np.searchsorted(ids, held.images[owners[there]]), names.codes[there]
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(names.values) + 1))
    for number, name in enumerate(names.values):
        if ends[number] < ends[number + 1]:
            yield name, np.unique(rows[order[ends[number] : ends[number + 1]]])


def _names(folders: Coded) -> Coded:
    """Folders by their names alone, as people know them."""
    names = [os.fsdecode(os.path.basename(relative or path.rstrip(b"/"))) for _, path, relative in folders.values]
    values = {name: number for number, name in enumerate(dict.fromkeys(names))}
    codes = np.array([values[name] for name in names] + [-1], np.int32)  # the last one is for -1
    return Coded(tuple(values), codes[folders.codes])


# --- the file -----------------------------------------------------------------------------------------------------


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _load(path: Path, space: SpaceRow) -> StoredMap | None:
    """What was kept; None where nothing was, or nothing that can be used."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            header = json.loads(kept["header"].tobytes())
            labels = [(str(text), float(x), float(y)) for text, x, y in header["labels"]]
            made = StoredMap(header["fingerprint"], header["method"], kept["vectors"], kept["places"], labels)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    fits = made.places.shape == (len(made.vectors), 2) and header.get("format") == FORMAT
    return made if fits and made.fingerprint == space.fingerprint else None


def _path(folder: Path, space: SpaceRow) -> Path:
    return folder / "index" / str(space.id) / "map.npz"


def _keep(path: Path, made: StoredMap) -> None:
    """Whole or not at all. The checksums are those of the zip format, compared when it is read."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": made.fingerprint,
        "method": made.method,
        "labels": made.labels,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="map.", suffix=".new", delete=False) as file:
        try:
            text = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez(file, header=text, vectors=made.vectors, places=made.places)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
