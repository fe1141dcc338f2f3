"""The index run, top to bottom: walk, decide, decode, encode, commit, sweep, join, refresh.

In: a catalog, an encoder, folders. Out: every picture below them in the catalog, with its captions and vectors.

    walk      list the files below each root, and compare size and time with what is known
    decide    read and hash what is new or changed; content that is known is not decoded again
    decode    on threads, a bounded number of pictures ahead, so that the encoder never waits
    encode    batch by batch
    commit    one transaction a batch: file rows, images, captions and their vectors
    sweep     files that are gone become `missing`, or are deleted with `prune`
    join      vectors of images together with their captions
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

from mmsearch import __version__, captioning, files, roots
from mmsearch.calibrating import calibrate
from mmsearch.captions import read_sidecar
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import FileRow
from mmsearch.catalog.write import Seen
from mmsearch.decode import Decoded, decode
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import ModelError, PictureError
from mmsearch.files import FoundFile
from mmsearch.joining import join
from mmsearch.reading_text import TextReader, read_waiting
from mmsearch.refreshing import refresh
from mmsearch.roots import Scope
from mmsearch.settings import Limits
from mmsearch.types import FailedFile, IndexReport, Progress

READ_AHEAD = 16  # files being read and hashed before they are looked at
BYTES_AHEAD = 192_000_000  # of file contents read and not yet decoded: bounds memory whatever the pictures
ENTRIES_PER_COMMIT = 1024  # places without a new picture (moves, copies, failures) in one transaction
COUNTS = ("new", "changed", "moved", "removed", "unchanged", "failed", "captions", "missing")

_Content = tuple[bytes, bytes, int, int]  # bytes, sha256, size, mtime_ns


@dataclass(frozen=True, slots=True)
class Order:
    """What an index run is asked to do; `Engine.index` documents each. add_roots: whether folders may become roots; a
    watch only follows them, and one may be removed while its run waits."""

    folders: tuple[bytes, ...] = ()
    add_roots: bool = True
    captions: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    prune: bool = False
    limits: Limits = field(default_factory=Limits)
    reader: TextReader | None = None


@dataclass(frozen=True, slots=True)
class _Todo:
    """A file that needs work. content: False when only the captions beside it changed."""

    scope: Scope
    found: FoundFile
    row: FileRow | None
    content: bool

    @property
    def path(self) -> Path:
        return self.scope.path / os.fsdecode(self.found.relative)


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a decode thread hands over: columns of `image`, embedded descriptions, the encoder's input."""

    facts: dict[str, Any]
    descriptions: tuple[str, ...]
    prepared: NDArray[Any]


@dataclass(slots=True)
class _Item:
    """A file on its way through the run. counts_as: a count of the report; None when it was counted already.
    known_captions: (source, text) that its image has. job: its decoder, while that is not waited for. size: bytes."""

    todo: _Todo
    seen: Seen
    counts_as: str | None = None
    known_captions: set[tuple[str, str]] = field(default_factory=set)
    job: Future[_Picture] | None = None
    size: int = 0
    picture: _Picture | None = None

    @property
    def bytes_held(self) -> int:
        return self.size if self.job is not None and not self.job.done() else 0


def index(
    catalog: Catalog,
    choose_encoder: Callable[[], Encoder | None],
    order: Order,
    *,
    on_progress: Callable[[Progress], None],
    cancel: Event,
) -> IndexReport:
    """Run the order and report; see `Engine.index`. choose_encoder is asked when no other run is at work any more,
    since that one may change the current space; without an encoder, only the vector indexes are refreshed."""
    tables = captioning.read_tables(order.captions)
    report = IndexReport(space="")

    def waiting(holder: str) -> None:
        on_progress(Progress("waiting", message=f"{holder} is indexing this collection; waiting for it to end"))

    with catalog.index_run(waiting, cancel.is_set) as held:
        started = time.monotonic()
        encoder = choose_encoder() if held else None
        if encoder is not None:
            run = _Run(catalog, encoder, order, on_progress, cancel, report)
            run.begin()
            todo = run.scan()
            run.encode(todo)
            run.add_captions(tables)
            run.sweep()
        if held and not cancel.is_set():
            join(catalog, on_progress, cancel)
            calibrate(catalog, encoder, on_progress)
            report.notices += refresh(catalog, on_progress)
            if encoder is not None:
                run.choose_space()
        if order.reader is not None and encoder is not None and not cancel.is_set():
            # Last, because it may take a day: everything else is whole by now.
            reading = read_waiting(catalog, order.reader, order.limits, on_progress, cancel)
            report.texts = reading.found
            report.notices += reading.notices()
        report.seconds = time.monotonic() - started
        report.images_per_second = run.encoded / report.seconds if encoder is not None else 0.0
    report.cancelled = cancel.is_set()
    return report


class _Run:
    """One index run: what it keeps between its steps."""

    def __init__(
        self,
        catalog: Catalog,
        encoder: Encoder,
        order: Order,
        on_progress: Callable[[Progress], None],
        cancel: Event,
        report: IndexReport,
    ) -> None:
        self.catalog, self.encoder, self.order = catalog, encoder, order
        self.on_progress, self.cancel, self.report = on_progress, cancel, report
        self.conditions = _conditions(order.limits)
        self.scopes: list[Scope] = []
        self.gone: list[int] = []  # file rows whose file is not there any more
        self.forgotten: list[int] = []  # failed ones among them that hold nothing worth keeping
        self.returned: list[int] = []  # missing ones that are back unchanged
        self.renamed_devices: list[Scope] = []  # roots whose device has another name now
        self.encoded = 0
        self.ahead: set[bytes] = set()  # contents read but not yet committed
        self.broken: dict[bytes, str] = {}  # contents that failed in this run
        self.moved: set[int] = set()  # file rows that a new place has taken over

    def begin(self) -> None:
        space = self.encoder.space
        self.report.space = space.name
        with self.catalog.writing() as connection:
            self.scopes = roots.resolve(connection, self.order.folders, add=self.order.add_roots)
            self.space = write.add_space(connection, space.name, space.fingerprint, space.dimension, "building")
            self.run = write.start_run(connection, "index")

    # --- walk -----------------------------------------------------------------------------------------------------

    def scan(self) -> list[_Todo]:
        """What needs work, in the order of scopes, then paths."""
        todo: list[_Todo] = []
        for scope in self.scopes:
            todo += self._scan(scope)
        return todo

    def _scan(self, scope: Scope) -> list[_Todo]:
        with self.catalog.reading() as connection:
            known = read.files_below(connection, scope.root.id, scope.under, self.space)
            inner = tuple(path + b"/" for path in roots.inner_roots(connection, scope.root))
        unreadable: list[bytes] = []

        def on_unreadable(relative: bytes, why: str) -> None:
            unreadable.append(relative)
            if why != files.DEAD_LINK or any(path.startswith(relative + b"/") for path in known):
                self._failed(scope.path / os.fsdecode(relative), why)

        todo: list[_Todo] = []
        met, recognised = 0, 0
        try:
            for found in files.walk(
                scope.path, under=scope.under, exclude=self.order.exclude, on_unreadable=on_unreadable
            ):
                if self.cancel.is_set():
                    return []
                if inner and found.relative.startswith(inner):
                    continue
                row = known.pop(found.relative, None)
                recognised += row is not None
                if (
                    row is None
                    and not found.picture_suffix
                    and not files.sniff(scope.path / os.fsdecode(found.relative))
                ):
                    continue
                met += 1
                if met % 500 == 0:
                    self.on_progress(Progress("scanning", done=met))
                one = self._decide_by_look(scope, found, row)
                if one is not None:
                    todo.append(one)
            left_alone = self._settle(scope, known, unreadable, met=met, recognised=recognised)
        except OSError as error:
            left_alone = f"it is away ({files.reason(error)})"
        if left_alone:
            self.report.left_alone.append((scope.path, f"{left_alone}; nothing was changed"))
            return []
        return todo

    def _decide_by_look(self, scope: Scope, found: FoundFile, row: FileRow | None) -> _Todo | None:
        """What a file needs, by its size and time alone; None when nothing."""
        if row is None or (row.size, row.mtime_ns) != (found.size, found.mtime_ns):
            return _Todo(scope, found, row, content=True)
        if row.status == "failed":
            if row.tried_with != self.conditions:
                return _Todo(scope, found, row, content=True)
            self.report.failed += 1
            return None
        if row.status == "missing":
            self.returned.append(row.id)
        if not row.encoded:
            return _Todo(scope, found, row, content=True)
        self.report.unchanged += 1
        return None if row.sidecar == _signature(found) else _Todo(scope, found, row, content=False)

    def _settle(
        self, scope: Scope, gone: dict[bytes, FileRow], unreadable: Sequence[bytes], *, met: int, recognised: int
    ) -> str | None:
        """What becomes of the known files that the walk did not meet; or why the root is to be left alone.
        Raises OSError when it has gone away meanwhile."""
        os.stat(scope.path)
        if roots.device_of(scope.root.path) != scope.root.device:
            if gone and not recognised:
                return "its disk seems to be away" + (", and another one in its place" if met else "")
            self.renamed_devices.append(scope)
        there = (os.path.lexists(os.path.join(scope.root.path, relative)) for relative in gone)
        if not scope.under and not met and gone and not self.order.prune and not any(there):
            return "it is suddenly empty (--prune deletes its pictures from the collection)"
        for relative, row in gone.items():
            if any(relative == folder or relative.startswith(folder + b"/") for folder in unreadable):
                continue
            if self.order.prune or row.status != "missing":
                (self.forgotten if row.image is None else self.gone).append(row.id)
        return None

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
        waiting = deque(todo)
        reading: deque[tuple[_Todo, Future[_Content] | None]] = deque()
        decoding: deque[_Item] = deque()
        pool = ThreadPoolExecutor(_cores(), "mmsearch-decode")
        try:
            while True:
                held = sum(item.bytes_held for item in decoding) + sum(one.found.size for one, _ in reading)
                while len(decoding) < 2 * self.encoder.batch_size:
                    while waiting and len(reading) < READ_AHEAD and (held < BYTES_AHEAD or not reading):
                        held += waiting[0].found.size
                        reading.append((waiting[0], self._start_reading(pool, waiting.popleft())))
                    if not reading or (decoding and reading[0][1] is not None and not reading[0][1].done()):
                        break  # rather hand over what is decoded than wait for a file to be read
                    if decoding and held >= BYTES_AHEAD:
                        break
                    decoding.append(self._decide(pool, *reading.popleft()))
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
            self._add_sidecar(item, seen.image)
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
        self._add_sidecar(item, known[0] if known else None)
        if not (known and known[1]) and seen.sha256 not in self.ahead:
            self.ahead.add(seen.sha256)
            item.job, item.size = pool.submit(self._decode, data), len(data)
        return item

    def _add_sidecar(self, item: _Item, image: int | None) -> None:
        """The captions that lie beside this place: a new place adds them to its image, a known one replaces them."""
        one, seen = item.todo, item.seen
        before = one.row.sidecar if one.row is not None else None
        if one.row is not None and (one.row.status, one.row.image, before) == ("ok", image, seen.sidecar):
            return
        if seen.sidecar is None and before is None:
            return
        with self.catalog.reading() as connection:
            places = read.places(connection, image) if image is not None else []
            item.known_captions = read.captions_of(connection, image) if image is not None else set()
        try:
            texts = read_sidecar(_sidecar_of(one.path)) if seen.sidecar is not None else []
            if one.row is None:
                seen.more_captions["sidecar"] = texts
                return
            for place in places:
                if place.sidecar is not None and place.file != one.row.id:
                    path = Path(os.fsdecode(os.path.join(place.root.path, place.relative)))
                    texts += read_sidecar(_sidecar_of(path))
            seen.captions["sidecar"] = texts
        except PictureError as error:
            seen.sidecar = before  # the next run tries again
            self.report.notices.append(f"The captions of {one.path} could not be read: {error}.")

    def _decode(self, data: bytes) -> _Picture:
        """On a decode thread."""
        decoded = decode(data, target=self.encoder.image_size, limits=self.order.limits)
        try:
            prepared = self.encoder.prepare(decoded.picture)
        except Exception as error:  # an encoder's own trouble with one picture must not end the run
            raise PictureError(f"the encoder {self.encoder.space.name} cannot use it: {error}") from error
        return _Picture(facts_of(decoded), decoded.metadata.descriptions, prepared)

    def _finish(self, item: _Item) -> _Item:
        """Wait for the decoder, where there is one, and note what failed. What came before is finished already."""
        seen = item.seen
        try:
            if item.job is not None:
                item.picture = item.job.result()
                seen.facts = item.picture.facts
                seen.more_captions["embedded"] = item.picture.descriptions
        except PictureError as error:
            self.broken[seen.sha256 or b""] = str(error)
        finally:
            item.job = None
        if seen.error is None and seen.sha256 in self.broken:
            seen.error, seen.tried_with = self.broken[seen.sha256], self.conditions
        return item

    def _commit(self, batch: Sequence[_Item]) -> None:
        """Encode a batch, no transaction open; then one transaction for all of it."""
        if not batch:
            return
        self._encode_pictures([item for item in batch if item.picture is not None])
        for item in batch:  # a copy of what the encoder refused
            if item.seen.error is None and item.seen.sha256 in self.broken:
                item.seen.error, item.seen.tried_with = self.broken[item.seen.sha256], self.conditions
        texts = list(
            dict.fromkeys(
                text
                for item in batch
                if item.seen.error is None
                for source, text in item.seen.all_captions()
                if (source, text) not in item.known_captions
            )
        )
        vectors = captioning.encode_texts(self.encoder, texts)
        with self.catalog.writing() as connection:
            added, lost = write.record(
                connection, self.space, [item.seen for item in batch], dict(zip(texts, vectors, strict=True))
            )
        self.report.captions += added
        for one in lost:
            one.error = "its content was removed from the collection meanwhile; the next run reads it again"
        for item in batch:
            if item.seen.error is not None:
                self._failed(item.todo.path, item.seen.error)
                continue
            self.ahead.discard(item.seen.sha256 or b"")
            if item.counts_as is not None:
                setattr(self.report, item.counts_as, getattr(self.report, item.counts_as) + 1)

    def _encode_pictures(self, items: Sequence[_Item]) -> None:
        """Give each picture its vector; one that gets none worth keeping fails."""
        vectors = self.encoder.encode_images([item.picture.prepared for item in items if item.picture is not None])
        if vectors.shape != (len(items), self.encoder.space.dimension):  # would give pictures each other's vectors
            raise ModelError(
                f"The encoder {self.encoder.space.name} gave vectors of shape {vectors.shape} for {len(items)} "
                "pictures; nothing of this batch was kept."
            )
        for item, vector in zip(items, vectors, strict=True):
            if np.isfinite(vector).all():
                item.seen.vector = vector
                self.encoded += 1
            else:
                self.broken[item.seen.sha256 or b""] = "the encoder gave numbers for it that are not finite"

    def add_captions(self, tables: Sequence[captioning.Table]) -> None:
        """What tables say of these pictures, and captions that this space lacks."""
        arguments = (self.catalog, self.encoder, self.space)
        if tables and not self.cancel.is_set():
            added, notices = captioning.apply_tables(
                *arguments, {scope.root: None for scope in self.scopes}, tables, self.on_progress, self.cancel
            )
            self.report.captions += added
            self.report.notices += notices
        captioning.encode_waiting(*arguments, self.on_progress, self.cancel)

    # --- sweep ----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """What is gone, what is back, what lies nowhere: one transaction."""
        report = self.report
        with self.catalog.writing() as connection:
            if not self.cancel.is_set():
                gone = [row for row in self.gone if row not in self.moved]
                if self.order.prune:
                    write.drop_files(connection, gone)
                    report.removed = len(gone)
                else:
                    write.set_missing(connection, gone)
                    report.missing = len(gone)
                write.drop_files(connection, self.forgotten)
                write.set_present(connection, self.returned)
                for scope in self.renamed_devices:
                    write.set_root(connection, scope.root.id, device=roots.device_of(scope.root.path))
                roots.drop_moved(connection)
                write.settle(connection)
            counts = {name: getattr(report, name) for name in COUNTS}
            write.end_run(connection, self.run, {**counts, "cancelled": self.cancel.is_set()})

    def choose_space(self) -> None:
        """Queries use this space from now on if it is whole, index and calibration too; else the old one goes on
        serving."""
        with self.catalog.writing() as connection:
            self._choose_space(connection)

    def _choose_space(self, connection: Connection) -> None:
        current = next((space for space in read.spaces(connection) if space.current), None)
        lacking = read.images_without_vector(connection, self.space)
        if lacking and current is not None and current.id != self.space:
            self.report.notices.append(
                f"{lacking} images have no vector of {self.report.space} yet; queries go on using {current.encoder} "
                "until a run over all folders has encoded them."
            )
        if lacking:
            return
        left = read.keyed_without_vector(connection, self.space, current.id) if current is not None else 0
        if left:
            self.report.notices.append(
                f"{left} images that an application added have no vector of {self.report.space}, and queries do not "
                "find them with it; add them again."
            )
        write.set_current(connection, self.space)

    def _failed(self, path: Path, error: str) -> None:
        self.report.failed += 1
        self.report.failures.append(FailedFile(path, error))


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        "perceptual_hash": perceptual_hash(decoded.picture),
    }


def perceptual_hash(picture: Image.Image) -> bytes:
    """16 bytes: the difference hash of rows and columns, 8 x 8 each."""
    grey = picture.convert("L").resize((9, 9), Image.Resampling.BOX)
    row, column = dhash.dhash_row_col(list(grey.tobytes()), size=8)
    return bytes(dhash.format_bytes(row, column))


def _signature(found: FoundFile) -> str | None:
    return None if found.sidecar is None else f"{found.sidecar[0]}:{found.sidecar[1]}"


def _sidecar_of(path: Path) -> Path:
    lower = path.with_suffix(".txt")
    return lower if lower.exists() else path.with_suffix(".TXT")
