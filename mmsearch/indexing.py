"""The index run, top to bottom: walk, decide, decode, encode, commit, sweep, refresh.

In: a catalog, an encoder, folders. Out: every picture below them in the catalog, with its captions and vectors.

    walk      list the files below each root, and compare size and time with what is known
    decide    read and hash what is new or changed; content that is known is not decoded again
    decode    on threads, a bounded number of pictures ahead, so that the encoder never waits
    encode    batch by batch
    commit    one transaction a batch: file rows, images, captions and their vectors
    sweep     files that are gone become `missing`, or are deleted with `prune`
    refresh   build a new generation of the vector index when the newest rows are many

A kill at any moment leaves a state that an undisturbed run passes through too; the next run goes on from there.
This file is longer than most because it reads as one story.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import dhash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import Connection

from mmsearch import __version__, files, roots
from mmsearch.captions import read_sidecar, read_table
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import FileRow
from mmsearch.catalog.write import Seen
from mmsearch.decode import Decoded, decode
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import ModelError, PictureError
from mmsearch.files import FoundFile
from mmsearch.refreshing import refresh
from mmsearch.roots import Scope
from mmsearch.settings import Limits
from mmsearch.types import FailedFile, IndexReport, Progress

READ_AHEAD = 16  # files being read and hashed before they are looked at
BYTES_AHEAD = 192_000_000  # of file contents waiting for a decoder: bounds memory whatever the pictures
ENTRIES_PER_COMMIT = 1024  # places without a new picture (moves, copies, failures) in one transaction
CAPTIONS_PER_COMMIT = 256
COUNTS = ("new", "changed", "moved", "removed", "unchanged", "failed", "captions", "missing")


@dataclass(frozen=True, slots=True)
class Order:
    """What an index run is asked to do; `Engine.index` documents each."""

    folders: tuple[bytes, ...] = ()
    captions: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    prune: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Todo:
    """A file that needs work. table: its captions from --captions files, None where they are as stored.
    content: False when only its captions changed."""

    scope: Scope
    found: FoundFile
    row: FileRow | None
    table: tuple[str, ...] | None
    content: bool

    @property
    def path(self) -> Path:
        return self.scope.path / os.fsdecode(self.found.relative)


_Content = tuple[bytes, bytes, int, int]  # bytes, sha256, size, mtime_ns


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a decode thread hands over: columns of `image`, embedded descriptions, the encoder's input."""

    facts: dict[str, Any]
    descriptions: tuple[str, ...]
    prepared: NDArray[Any]


@dataclass(slots=True)
class _Item:
    """A file on its way through the run. counts_as: a count of the report; None when it was counted already.
    new_content: the catalog does not know it. job: its decoder, while that is not waited for. size: bytes of it."""

    todo: _Todo
    seen: Seen
    counts_as: str | None = None
    new_content: bool = False
    job: Future[_Picture] | None = None
    size: int = 0
    picture: _Picture | None = None

    @property
    def bytes_held(self) -> int:
        return self.size if self.job is not None and not self.job.done() else 0


def index(
    catalog: Catalog,
    encoder: Encoder | None,
    order: Order,
    *,
    on_progress: Callable[[Progress], None],
    cancel: Event,
) -> IndexReport:
    """Run the order and report; see `Engine.index`. Without an encoder, only the vector indexes are refreshed."""
    started = time.monotonic()
    tables = _Tables(order.captions)
    report = IndexReport(space="" if encoder is None else encoder.space.name)

    def waiting(holder: str) -> None:
        on_progress(Progress("waiting", message=f"{holder} is indexing this collection; waiting for it to end"))

    with catalog.index_run(waiting, cancel.is_set) as held:
        if held and encoder is not None:
            run = _Run(catalog, encoder, order, tables, on_progress, cancel, report)
            run.begin()
            todo = run.scan()
            run.encode(todo)
            run.encode_captions()
            run.sweep(time.monotonic() - started)
        if held and not cancel.is_set():
            report.notices += refresh(catalog, on_progress)
    report.cancelled = cancel.is_set()
    return report


class _Tables:
    """The captions of the --captions files, by picture name: its path below the root or beside the table, else its
    file name alone."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.texts: dict[str, list[str]] = {}
        self.unmatched: set[str] = set()
        self.folders = [os.path.realpath(path.parent) for path in paths]
        for path in paths:
            for name, text in read_table(path):
                self.texts.setdefault(os.path.normpath(name), []).append(text)
        self.unmatched.update(self.texts)

    def of(self, scope: Scope, found: FoundFile) -> tuple[str, ...] | None:
        """The captions of a file, None where no table names it."""
        if not self.texts:
            return None
        path = os.path.join(os.fsdecode(scope.root.path), os.fsdecode(found.relative))
        names = [os.fsdecode(found.relative), path, *(os.path.relpath(path, folder) for folder in self.folders)]
        for name in (*names, os.path.basename(path)):
            if name in self.texts:
                self.unmatched.discard(name)
                return tuple(dict.fromkeys(self.texts[name]))
        return None


class _Run:
    """One index run: what it keeps between its steps."""

    def __init__(
        self,
        catalog: Catalog,
        encoder: Encoder,
        order: Order,
        tables: _Tables,
        on_progress: Callable[[Progress], None],
        cancel: Event,
        report: IndexReport,
    ) -> None:
        self.catalog, self.encoder, self.order, self.tables = catalog, encoder, order, tables
        self.on_progress, self.cancel = on_progress, cancel
        self.report = report
        self.scopes: list[Scope] = []
        self.gone: list[int] = []  # file rows whose file is not there any more
        self.forgotten: list[int] = []  # failed ones among them that hold nothing worth keeping
        self.returned: list[int] = []  # missing ones that are back unchanged
        self.devices: list[Scope] = []  # roots whose device has another name now
        self.encoded = 0
        self.ahead: set[bytes] = set()  # contents read but not yet committed
        self.broken: dict[bytes, str] = {}  # contents that failed in this run
        self.moved: set[int] = set()  # file rows that a new place has taken over
        self.conditions = _conditions(order.limits)

    def begin(self) -> None:
        space = self.encoder.space
        with self.catalog.writing() as connection:
            self.scopes = roots.resolve(connection, self.order.folders)
            self.space = write.add_space(connection, space.name, space.fingerprint, space.dimension, "building")
            self.run = write.start_run(connection, "index")

    # --- walk -----------------------------------------------------------------------------------------------------

    def scan(self) -> list[_Todo]:
        todo: list[_Todo] = []
        for scope in self.scopes:
            todo += self._scan(scope)
        if self.tables.unmatched and not self.cancel.is_set():
            examples = ", ".join(sorted(self.tables.unmatched)[:3])
            self.report.notices.append(
                f"{len(self.tables.unmatched)} names in the caption files match no picture here, such as {examples}."
            )
        return todo

    def _scan(self, scope: Scope) -> list[_Todo]:
        with self.catalog.reading() as connection:
            known = read.files_below(connection, scope.root.id, scope.under, self.space)
            stored = read.captions_by_image(connection, "table") if self.tables.texts else {}
        present_before = sum(row.status == "ok" for row in known.values())
        unreadable: list[bytes] = []

        def on_unreadable(relative: bytes, why: str) -> None:
            unreadable.append(relative)
            if why != files.DEAD_LINK or any(path.startswith(relative + b"/") for path in known):
                self._failed(scope.path / os.fsdecode(relative), why)

        todo: list[_Todo] = []
        seen = 0
        try:
            walk = files.walk(scope.path, under=scope.under, exclude=self.order.exclude, on_unreadable=on_unreadable)
            for found in walk:
                if self.cancel.is_set():
                    return []
                row = known.pop(found.relative, None)
                if (
                    row is None
                    and not found.picture_suffix
                    and not files.sniff(scope.path / os.fsdecode(found.relative))
                ):
                    continue
                seen += 1
                if seen % 500 == 0:
                    self.on_progress(Progress("scanning", done=seen))
                one = self._decide_by_look(scope, found, row, stored)
                if one is not None:
                    todo.append(one)
        except OSError as error:
            self.report.left_alone.append((scope.path, f"it is away ({files.reason(error)}); nothing was changed"))
            return []
        self._settle(scope, known, unreadable, empty=seen == 0 and present_before > 0)
        return todo

    def _decide_by_look(
        self, scope: Scope, found: FoundFile, row: FileRow | None, stored: dict[int, list[str]]
    ) -> _Todo | None:
        """What a file needs, by its size and time alone; None when nothing."""
        table = self.tables.of(scope, found)
        if row is None or (row.size, row.mtime_ns) != (found.size, found.mtime_ns):
            return _Todo(scope, found, row, table, content=True)
        if row.status == "failed":
            if row.tried_with != self.conditions:
                return _Todo(scope, found, row, table, content=True)
            self.report.failed += 1
            return None
        if row.status == "missing":
            self.returned.append(row.id)
        if table is not None and set(table) == set(stored.get(row.image or 0, ())):
            table = None
        if not row.encoded:
            return _Todo(scope, found, row, table, content=True)
        self.report.unchanged += 1
        if table is not None or row.sidecar != _signature(found):
            return _Todo(scope, found, row, table, content=False)
        return None

    def _settle(self, scope: Scope, gone: dict[bytes, FileRow], unreadable: Sequence[bytes], *, empty: bool) -> None:
        """What becomes of the known files that the walk did not meet."""
        device = roots.device_of(scope.root.path)
        if empty and not scope.under:
            if device != scope.root.device:
                self.report.left_alone.append(
                    (scope.path, "it is empty and its disk seems to be away; nothing was changed")
                )
                return
            if not self.order.prune:
                self.report.left_alone.append(
                    (
                        scope.path,
                        "it is suddenly empty; nothing was changed (--prune deletes its pictures from the collection)",
                    )
                )
                return
        elif device != scope.root.device:
            self.devices.append(scope)
        for relative, row in gone.items():
            if any(relative == folder or relative.startswith(folder + b"/") for folder in unreadable):
                continue
            if self.order.prune or row.status != "missing":
                (self.forgotten if row.image is None else self.gone).append(row.id)

    # --- decide, decode, encode, commit ---------------------------------------------------------------------------

    def encode(self, todo: Sequence[_Todo]) -> None:
        """Read, decode and encode what needs it, and commit it batch by batch."""
        batch: list[_Item] = []
        pictures = 0
        with closing(self._look_ahead(todo)) as items:
            for done, item in enumerate(items, 1):
                batch.append(item)
                pictures += item.picture is not None
                if pictures >= self.encoder.batch_size or len(batch) >= ENTRIES_PER_COMMIT:
                    self._commit(batch)
                    batch, pictures = [], 0
                    self.on_progress(Progress("encoding", done=done, total=len(todo)))
                if self.cancel.is_set():
                    break
        self._commit(batch)

    def _look_ahead(self, todo: Sequence[_Todo]) -> Generator[_Item]:
        """Each file with what was learned of it, in order, while threads read and decode those that follow."""
        waiting = iter(todo)
        reading: deque[tuple[_Todo, Future[_Content] | None]] = deque()
        decoding: deque[_Item] = deque()
        pool = ThreadPoolExecutor(os.cpu_count(), "mmsearch-decode")
        try:
            while True:
                undecoded = sum(item.bytes_held for item in decoding)
                while len(decoding) < 2 * self.encoder.batch_size and (undecoded < BYTES_AHEAD or not decoding):
                    while len(reading) < READ_AHEAD and (one := next(waiting, None)) is not None:
                        reading.append((one, self._start_reading(pool, one)))
                    if not reading or (decoding and reading[0][1] is not None and not reading[0][1].done()):
                        break  # rather hand over what is decoded than wait for a file to be read
                    decoding.append(self._decide(pool, *reading.popleft()))
                    undecoded += decoding[-1].bytes_held
                if not decoding:
                    return
                yield self._finish(decoding.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _start_reading(self, pool: ThreadPoolExecutor, one: _Todo) -> Future[_Content] | None:
        if not one.content:
            return None
        return pool.submit(files.read, one.path, self.order.limits.max_megabytes)

    def _decide(self, pool: ThreadPoolExecutor, one: _Todo, job: Future[_Content] | None) -> _Item:
        """Must this file be decoded, or is its content known, from before or from further up in this run?"""
        seen = Seen(one.scope.root.id, one.found.relative, one.found.size, one.found.mtime_ns, _signature(one.found))
        seen.file = None if one.row is None else one.row.id
        item = _Item(one, seen)
        if job is None:
            seen.image = None if one.row is None else one.row.image
            self._add_captions(item, seen.image)
            return item
        try:
            data, seen.sha256, seen.size, seen.mtime_ns = job.result()
        except PictureError as error:
            seen.error = str(error)
            seen.tried_with = None if isinstance(error.__cause__, OSError) else self.conditions
            return item
        with self.catalog.reading() as connection:
            known = read.image_of(connection, seen.sha256, self.space)
            places = read.places(connection, known[0]) if known and one.row is None else []
        if one.row is not None:
            item.counts_as = "unchanged" if known and known[0] == one.row.image else "changed"
        elif place := next((p for p in places if p.file not in self.moved and roots.is_gone(p.root, p.relative)), None):
            item.counts_as, seen.moved_from = "moved", place.file
            self.moved.add(place.file)
        else:
            item.counts_as = "new"
        self._add_captions(item, known[0] if known else None)
        item.new_content = known is None
        if not (known and known[1]) and seen.sha256 not in self.ahead:
            self.ahead.add(seen.sha256)
            item.job, item.size = pool.submit(self._decode, data), len(data)
        return item

    def _add_captions(self, item: _Item, image: int | None) -> None:
        """The captions that this place gives its image: a new place adds, a changed one replaces."""
        one, seen = item.todo, item.seen
        if one.table is not None:
            seen.captions["table"] = one.table
        before = one.row.sidecar if one.row is not None else None
        if seen.sidecar == before:
            return
        try:
            own = read_sidecar(_sidecar_of(one.path)) if seen.sidecar is not None else []
            if one.row is None:
                seen.more_captions["sidecar"] = own
                return
            with self.catalog.reading() as connection:
                places = read.places(connection, image) if image is not None else []
            for place in places:
                if place.sidecar is not None and place.file != one.row.id:
                    own += read_sidecar(_sidecar_of(Path(os.fsdecode(os.path.join(place.root.path, place.relative)))))
            seen.captions["sidecar"] = own
        except PictureError as error:
            seen.sidecar = before  # the next run tries again
            self.report.notices.append(f"The captions of {one.path} could not be read: {error}.")

    def _decode(self, data: bytes) -> _Picture:
        """On a decode thread."""
        decoded = decode(data, target=self.encoder.image_size, limits=self.order.limits)
        return _Picture(facts_of(decoded), decoded.metadata.descriptions, self.encoder.prepare(decoded.picture))

    def _finish(self, item: _Item) -> _Item:
        """Wait for the decoder, where there is one, and note what failed. What came before is finished already."""
        seen = item.seen
        try:
            if item.job is not None:
                item.picture = item.job.result()
                seen.facts = item.picture.facts
                if item.new_content:
                    seen.captions["embedded"] = item.picture.descriptions
        except PictureError as error:
            self.broken[seen.sha256 or b""] = str(error)
        finally:
            item.job = None
        if seen.error is None and seen.sha256 in self.broken:
            seen.error, seen.tried_with = self.broken[seen.sha256], self.conditions
        if seen.error is not None:
            self._failed(item.todo.path, seen.error)
        elif item.counts_as is not None:
            setattr(self.report, item.counts_as, getattr(self.report, item.counts_as) + 1)
        return item

    def _commit(self, batch: Sequence[_Item]) -> None:
        """Encode a batch, no transaction open; then one transaction for all of it."""
        if not batch:
            return
        pictures = [item for item in batch if item.picture is not None]
        vectors = self.encoder.encode_images([item.picture.prepared for item in pictures if item.picture is not None])
        _check_vectors(vectors, len(pictures), self.encoder)
        for item, vector in zip(pictures, vectors, strict=True):
            item.seen.vector = vector
        seen = [item.seen for item in batch]
        texts = list(dict.fromkeys(text for one in seen for text in one.all_captions()))
        text_vectors = self.encoder.encode_texts(texts)
        _check_vectors(text_vectors, len(texts), self.encoder)
        with self.catalog.writing() as connection:
            self.report.captions += write.record(
                connection, self.space, seen, dict(zip(texts, text_vectors, strict=True))
            )
        self.encoded += len(pictures)
        self.ahead.difference_update(one.sha256 for one in seen if one.sha256 is not None and one.error is None)

    def encode_captions(self) -> None:
        """Captions that have no vector in this space yet, as after a change of model."""
        done = 0
        while not self.cancel.is_set():
            with self.catalog.reading() as connection:
                waiting = read.captions_to_encode(connection, self.space, CAPTIONS_PER_COMMIT)
            if not waiting:
                return
            vectors = self.encoder.encode_texts([text for _, text in waiting])
            _check_vectors(vectors, len(waiting), self.encoder)
            with self.catalog.writing() as connection:
                owned = [(identity, vector) for (identity, _), vector in zip(waiting, vectors, strict=True)]
                write.put_caption_vectors(connection, self.space, owned)
            done += len(waiting)
            self.on_progress(Progress("captions", done=done))

    # --- sweep -------------------------------------------------------------------------------------------

    def sweep(self, seconds: float) -> None:
        """What is gone, what is back, whether the space is whole; one transaction, which also ends the run."""
        report = self.report
        report.seconds = seconds
        report.images_per_second = self.encoded / seconds if seconds > 0 else 0.0
        report.cancelled = self.cancel.is_set()
        with self.catalog.writing() as connection:
            if not report.cancelled:
                gone = [row for row in self.gone if row not in self.moved]
                if self.order.prune:
                    write.drop_files(connection, gone)
                    report.removed = len(gone)
                else:
                    write.set_missing(connection, gone)
                    report.missing = len(gone)
                write.drop_files(connection, self.forgotten)
                write.set_present(connection, self.returned)
                for scope in self.devices:
                    write.set_root(connection, scope.root.id, device=roots.device_of(scope.root.path))
                roots.drop_moved(connection)
                self._choose_space(connection)
            counts = {name: getattr(report, name) for name in COUNTS}
            write.end_run(connection, self.run, {**counts, "cancelled": report.cancelled})

    def _choose_space(self, connection: Connection) -> None:
        """Queries use this space from now on if it is whole; else the old one goes on serving."""
        lacking = read.images_without_vector(connection, self.space)
        if not lacking:
            write.set_current(connection, self.space)
            return
        current = next((space for space in read.spaces(connection) if space.current), None)
        if current is not None and current.id != self.space:
            self.report.notices.append(
                f"{lacking} images have no vector of {self.report.space} yet; queries go on using {current.encoder} "
                "until a run over all folders has encoded them."
            )

    def _failed(self, path: Path, error: str) -> None:
        self.report.failed += 1
        self.report.failures.append(FailedFile(path, error))


def _conditions(limits: Limits) -> str:
    """What decides, beside the file itself, whether it can be read."""
    heif = "heif" if find_spec("pillow_heif") else "no heif"
    return f"{__version__}, {limits.max_megapixels:g} MP, {limits.max_megabytes:g} MB, {heif}"


def facts_of(decoded: Decoded) -> dict[str, Any]:
    """The columns of `image` that a decoded picture fills."""
    meta = decoded.metadata
    return {
        "width": decoded.width,
        "height": decoded.height,
        "format": decoded.format,
        "taken_at": meta.taken_at,
        "camera": meta.camera,
        "lens": meta.lens,
        "latitude": meta.latitude,
        "longitude": meta.longitude,
        "perceptual_hash": _perceptual_hash(decoded.picture),
    }


def _perceptual_hash(picture: Image.Image) -> bytes:
    """16 bytes: the difference hash of rows and columns, 8 x 8 each."""
    grey = picture.convert("L").resize((9, 9), Image.Resampling.BOX)
    row, column = dhash.dhash_row_col(list(grey.tobytes()), size=8)
    return bytes(dhash.format_bytes(row, column))


def _signature(found: FoundFile) -> str | None:
    return None if found.sidecar is None else f"{found.sidecar[0]}:{found.sidecar[1]}"


def _sidecar_of(path: Path) -> Path:
    lower = path.with_suffix(".txt")
    return lower if lower.exists() else path.with_suffix(".TXT")


def _check_vectors(vectors: NDArray[np.float32], count: int, encoder: Encoder) -> None:
    """A wrong number of rows would give pictures each other's vectors."""
    if vectors.shape != (count, encoder.space.dimension) or not np.isfinite(vectors).all():
        raise ModelError(
            f"The encoder {encoder.space.name} gave {vectors.shape} values for {count} items, or some that are not "
            "finite; nothing of this batch was kept."
        )
