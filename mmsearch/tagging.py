"""Tags: given to pictures by zero-shot classification, and by people.

In: the stored vectors of pictures, a list of labels, a calibration. Out: tags in the catalog, and a report.

A picture may have any number of labels: each is decided by itself, by the probability that it is right. What was
decided before, for the same labels, is replaced; tags that a person gave are never touched. Each batch is one
transaction, and what is so already is not written: a killed run is finished by the next one.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch.catalog import places, read, tags
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import SpaceRow
from mmsearch.composing import open_picture
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import ModelError, UsageError
from mmsearch.labels import Label, LabelBank, LabelScore, checked_name, label_bank
from mmsearch.relevance import HITS, Calibration
from mmsearch.roots import real_place
from mmsearch.settings import Limits
from mmsearch.types import CalibrationKind, Progress

IMAGES_PER_COMMIT = 1024
EXAMPLES = 3  # pictures named for each label
MIN_PROBABILITY = 0.5  # more likely right than wrong

Image = int | str | os.PathLike[str]  # an id, a file or a folder


@dataclass(frozen=True, slots=True)
class LabelCount:
    """What became of one label. images: how many of those looked at have it now; added, removed: how many more and
    fewer than before. examples: files of the most probable ones."""

    label: str
    images: int
    added: int
    removed: int
    examples: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A file that was named by itself, with its labels, the most probable first."""

    path: Path
    labels: tuple[LabelScore, ...]


@dataclass(frozen=True, slots=True)
class TagReport:
    """What zero-shot tagging did, or with `dry_run` would do.

    images: how many were looked at. tagged: how many of them have at least one of the labels now. left_out: images
    without a vector in the space. counts: of the labels that a picture has, or had before, the most frequent first.
    pictures: the files that were named one by one. calibration: where the probabilities come from.
    cancelled: stopped early; what was committed is kept.
    """

    space: str
    labels: int
    min_probability: float
    dry_run: bool
    images: int
    tagged: int
    left_out: int
    counts: tuple[LabelCount, ...]
    pictures: tuple[LabelledPicture, ...]
    calibration: CalibrationKind
    cancelled: bool = False

    @property
    def added(self) -> int:
        """How many tags of pictures came."""
        return sum(one.added for one in self.counts)

    @property
    def removed(self) -> int:
        """How many tags of pictures went."""
        return sum(one.removed for one in self.counts)


@dataclass(slots=True)
class _Tally:
    """What is known of one label while images go by. best: a heap of (probability, -image)."""

    images: int = 0
    added: int = 0
    removed: int = 0
    best: list[tuple[float, int]] = field(default_factory=list)


def tag(
    catalog: Catalog,
    encoder: Encoder,
    space: SpaceRow,
    calibration: Calibration | None,
    labels: Sequence[Label],
    *,
    images: Sequence[Image] | None,
    min_probability: float | None,
    dry_run: bool,
    limits: Limits,
    on_progress: Callable[[Progress], None],
    cancel: Event,
) -> TagReport:
    """See `Engine.tag`."""
    least = MIN_PROBABILITY if min_probability is None else min_probability
    if not 0 <= least <= 1:
        raise UsageError(f"The probability is {least}; it must be from 0 to 1.")
    with catalog.reading() as connection:
        named = None if images is None else resolve(connection, images)
        everything = tags.present_images(connection)
        wanted = everything if named is None else named.images
        spelling = tags.known_spelling(connection, [label.name for label in labels])
    if named is not None and named.unknown and not dry_run:
        raise UsageError(
            f"{named.unknown[0]} is not in this collection; `mmsearch index` adds its folder, and --dry-run shows "
            "its labels without adding it."
        )
    if calibration is None:  # asked before the labels are encoded, which may take a while
        raise _uncalibrated(space)
    bank = label_bank(
        encoder,
        labels,
        calibration,
        lambda vectors: best_hits(catalog, space, vectors, on_progress),
        len(everything),
        on_progress,
    )
    if bank.slopes is None:
        raise _uncalibrated(space)
    run = _Run(catalog, space, bank, [spelling[name] for name in bank.names], least, dry_run)
    shown = {} if named is None else named.files
    cancelled = False
    for start in range(0, len(wanted), IMAGES_PER_COMMIT):
        if cancelled := cancel.is_set():
            break
        run.batch(wanted[start : start + IMAGES_PER_COMMIT], shown)
        on_progress(Progress("tagging", done=min(start + IMAGES_PER_COMMIT, len(wanted)), total=len(wanted)))
    pictures = [LabelledPicture(path, run.shown[image]) for image, path in shown.items() if image in run.shown]
    for path in () if named is None else named.unknown:
        row = encoder.encode_images([encoder.prepare(open_picture(path, encoder.image_size, limits))])[0]
        pictures.append(LabelledPicture(path, _above(bank, row, least)))
    return TagReport(
        space=space.encoder,
        labels=len(labels),
        min_probability=least,
        dry_run=dry_run,
        images=run.images,
        tagged=run.tagged,
        left_out=run.left_out,
        counts=run.counts(),
        pictures=tuple(pictures),
        calibration=calibration.kind,
        cancelled=cancelled,
    )


def best_hits(
    catalog: Catalog, space: SpaceRow, labels: NDArray[np.float32], on_progress: Callable[[Progress], None]
) -> NDArray[np.float32]:
    """Vectors of labels (n, d) -> (n, m, d) rows of the best hits of each in the whole collection, best first: a label
    is decided alike, whichever pictures are named."""
    with catalog.reading() as connection:
        images = tags.present_images(connection)
    scores = np.empty((len(labels), 0), np.float32)
    owners = np.empty((len(labels), 0), np.int64)  # the image of each score
    for start in range(0, len(images), IMAGES_PER_COMMIT):
        some = images[start : start + IMAGES_PER_COMMIT]
        with catalog.reading() as connection:
            ids, rows = tags.vectors_of(connection, space.id, space.dimension, some)
        scores = np.concatenate([scores, labels @ rows.T], axis=1)
        owners = np.concatenate([owners, np.broadcast_to(np.array(ids, np.int64), (len(labels), len(ids)))], axis=1)
        if scores.shape[1] > HITS:
            top = np.argpartition(-scores, HITS - 1, axis=1)[:, :HITS]
            scores, owners = np.take_along_axis(scores, top, axis=1), np.take_along_axis(owners, top, axis=1)
        on_progress(Progress("comparing", done=start + len(some), total=len(images)))
    owners = np.take_along_axis(owners, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    with catalog.reading() as connection:
        ids, rows = tags.vectors_of(connection, space.id, space.dimension, np.unique(owners).tolist())
    if not ids:
        return np.empty((len(labels), 0, space.dimension), np.float32)
    places = np.searchsorted(np.array(ids, np.int64), owners)
    best: NDArray[np.float32] = rows[np.minimum(places, len(ids) - 1)]  # (n, m, d); an image may just have gone
    return best


def _uncalibrated(space: SpaceRow) -> ModelError:
    return ModelError(
        f"The space {space.encoder} has no calibration, so nothing says how likely a label is; `mmsearch index` makes "
        "one when the collection holds enough pictures."
    )


class _Run:
    """One pass over images: decides, writes, counts."""

    def __init__(
        self, catalog: Catalog, space: SpaceRow, bank: LabelBank, names: Sequence[str], least: float, dry_run: bool
    ) -> None:
        """names: the tag of each label."""
        self.catalog, self.space, self.bank, self.names = catalog, space, bank, names
        self.least, self.dry_run = least, dry_run
        self.images = self.tagged = self.left_out = 0
        self.tallies = [_Tally() for _ in names]
        self.shown: dict[int, tuple[LabelScore, ...]] = {}

    def batch(self, images: Sequence[int], shown: dict[int, Path]) -> None:
        """One transaction, where anything changes."""
        with self.catalog.reading() as connection:
            found, rows = tags.vectors_of(connection, self.space.id, self.space.dimension, images)
            known = tags.ids(connection, self.names)
            number = {known[name]: i for i, name in enumerate(self.names) if name in known}
            stored = tags.given_by_machine(connection, found, number)
        before = {(image, number[tag]): score for (image, tag), score in stored.items()}
        likely = self.bank.probabilities(self.bank.scores(rows))
        assert likely is not None
        places, labels = np.nonzero(likely >= self.least)
        # Rounded, so that the same decision is the same number on every machine and is not written again.
        chosen = np.round(likely[places, labels], 4).tolist()
        pairs = zip((found[place] for place in places.tolist()), labels.tolist(), strict=True)
        now = dict(zip(pairs, chosen, strict=True))
        changed = {pair: score for pair, score in now.items() if before.get(pair) != score}
        gone = [pair for pair in before if pair not in now]
        if (changed or gone) and not self.dry_run:
            self._write(changed, gone)
        self._count(before, now)
        self.images += len(found)
        self.left_out += len(images) - len(found)
        self.tagged += len(np.unique(places))
        for image in shown.keys() & set(found):
            self.shown[image] = _above(self.bank, rows[found.index(image)], self.least)

    def _write(self, changed: dict[tuple[int, int], float], gone: Sequence[tuple[int, int]]) -> None:
        with self.catalog.writing() as connection:
            used = sorted({label for _, label in (*changed, *gone)})
            ids = tags.make(connection, [self.names[label] for label in used])
            tag_of = {label: ids[self.names[label]] for label in used}
            scores = {(image, tag_of[label]): score for (image, label), score in changed.items()}
            tags.set_by_machine(connection, scores, [(image, tag_of[label]) for image, label in gone])

    def _count(self, before: dict[tuple[int, int], float], now: dict[tuple[int, int], float]) -> None:
        for (image, label), score in now.items():
            tally = self.tallies[label]
            tally.images += 1
            tally.added += (image, label) not in before
            entry = (score, -image)
            if len(tally.best) < EXAMPLES:
                heapq.heappush(tally.best, entry)
            elif entry > tally.best[0]:
                heapq.heapreplace(tally.best, entry)
        for image, label in before:
            self.tallies[label].removed += (image, label) not in now

    def counts(self) -> tuple[LabelCount, ...]:
        """Of the labels that something can be said of."""
        images = sorted({-image for tally in self.tallies for _, image in tally.best})
        with self.catalog.reading() as connection:
            files = read.present_files(connection, images)
        paths = {image: _path(found[0]) for image, found in files.items() if found[0][0]}
        counts = [
            LabelCount(
                name,
                tally.images,
                tally.added,
                tally.removed,
                tuple(paths[-image] for _, image in sorted(tally.best, reverse=True) if -image in paths),
            )
            for name, tally in zip(self.names, self.tallies, strict=True)
            if tally.images or tally.removed
        ]
        return tuple(sorted(counts, key=lambda one: (-one.images, one.label)))


def _above(bank: LabelBank, row: NDArray[np.float32], least: float) -> tuple[LabelScore, ...]:
    """The labels of one picture, the most probable first."""
    return tuple(one for one in bank.best(row, len(bank.names)) if one.probability and one.probability >= least)


# --- by people ----------------------------------------------------------------------------------------------------


def add(catalog: Catalog, images: Sequence[Image], names: Sequence[str]) -> int:
    """See `Engine.add_tags`."""
    wanted = list(dict.fromkeys(map(checked_name, names)))
    added = 0
    for some in _batches(catalog, images):
        with catalog.writing() as connection:
            spelling = tags.known_spelling(connection, wanted)
            made = tags.make(connection, list(dict.fromkeys(spelling.values())))
            added += tags.give(connection, some, list(made.values()))
    return added


def remove(catalog: Catalog, images: Sequence[Image], names: Sequence[str]) -> int:
    """See `Engine.remove_tags`."""
    with catalog.reading() as connection:
        there = {name.casefold(): name for name in tags.names(connection)}
    for name in map(checked_name, names):
        if name.casefold() not in there:
            near = get_close_matches(name.casefold(), there, n=3)
            hint = f"; did you mean {', '.join(there[one] for one in near)}?" if near else "."
            raise UsageError(f"No picture of this collection has the tag {name!r}{hint}")
    removed = 0
    for some in _batches(catalog, images):
        with catalog.writing() as connection:
            wanted = tags.ids(connection, [there[checked_name(name).casefold()] for name in names])
            removed += tags.take(connection, some, list(wanted.values()))
    return removed


def _batches(catalog: Catalog, images: Sequence[Image]) -> Iterator[Sequence[int]]:
    with catalog.reading() as connection:
        named = resolve(connection, images)
    if named.unknown:
        raise UsageError(f"{named.unknown[0]} is not in this collection; `mmsearch index` adds its folder.")
    for start in range(0, len(named.images), IMAGES_PER_COMMIT):
        yield named.images[start : start + IMAGES_PER_COMMIT]


# --- which pictures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """What paths and ids stand for. images: ids, ascending. files: image -> the file that named it, for those named one
    by one. unknown: files that are there but not in the collection."""

    images: list[int]
    files: dict[int, Path]
    unknown: list[Path]


def resolve(connection: Connection, images: Sequence[Image]) -> Named:
    """Ids, files and folders -> images with present files. A single one may stand alone.

    UsageError for an id that is not known, a path that leads nowhere, a file that failed, a folder without pictures.
    """
    if isinstance(images, int | str | os.PathLike):
        images = [images]
    found: set[int] = set()
    files: dict[int, Path] = {}
    unknown: list[Path] = []
    for one in images:
        if isinstance(one, int):
            if not read.existing_images(connection, [one]):
                raise UsageError(f"There is no image #{one} in this collection; `mmsearch query --json` shows ids.")
            found.add(one)
            continue
        path = real_place(one)
        known = places.file_at(connection, os.fsencode(path))
        if known is not None and known[0] is not None and known[1] == "ok":
            found.add(known[0])
            files.setdefault(known[0], path)
        elif known is not None:
            raise UsageError(f"{one} {'could not be indexed: ' + known[2] if known[2] else 'is gone from its folder'}.")
        elif path.is_file():
            unknown.append(path)
        elif inside := _below(connection, os.fsencode(path)):
            found |= inside
        elif path.is_dir():
            raise UsageError(f"No picture of {one} is in this collection; `mmsearch index {one}` adds them.")
        else:
            raise UsageError(f"There is no file or folder {one}; check the spelling.")
    return Named(sorted(found), files, unknown)


def _below(connection: Connection, folder: bytes) -> set[int]:
    """The images of files below a folder, which may lie in a root or hold some."""
    found: set[int] = set()
    inside = folder.rstrip(b"/") + b"/"
    for root in read.roots(connection):
        if root.path == folder or root.path.startswith(inside):
            found.update(tags.images_below(connection, root.id, b""))
        elif folder.startswith(root.path.rstrip(b"/") + b"/"):
            under = folder[len(root.path.rstrip(b"/")) + 1 :]
            found.update(tags.images_below(connection, root.id, under))
    return found


def _path(place: tuple[bytes, bytes]) -> Path:
    return Path(os.fsdecode(os.path.join(*place)))
