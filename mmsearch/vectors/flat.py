"""An exact search by FAISS over memory-mapped float16 rows: the index of collections up to about 300,000 rows.

On disk: `ids.npy` and `segment-NNNNN.faiss`, each a scalar-quantised float16 index of at most SEGMENT_ROWS rows
whose codes are the rows themselves, bit for bit. Segments let the build stream with bounded memory.
Searching reads the rows where they lie in the page cache; nothing is copied into the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import DamagedError
from mmsearch.vectors.rows import (
    IDS_FILE,
    Chunk,
    checked,
    checked_queries,
    load_ids,
    positions_of,
    positions_of_all,
)

# 65,536 rows of 768 dimensions are 100 MB, which a build holds in memory; a search pays about 15 microseconds for each.
SEGMENT_ROWS = 65_536

# Up to this share of a segment's rows, copying the allowed ones and scanning the copy beats a bitmap over the
# segment: at 384 dimensions 0.13 against 0.19 ms at 3 %, 0.46 against 0.36 at 10 %. FAISS's selector by array
# looks through the whole array for every row (11 ms at 300 ids), so it is never used.
GATHER_SHARE = 0.04


class FlatIndex:
    """Compares each query with each row. One query uses one OpenMP thread (a second one only makes it slower);
    several queries at once use as many as the calling thread has set."""

    exact: ClassVar[bool] = True
    parameters: ClassVar[Mapping[str, str | int]] = {"storage": "QT_fp16", "segment_rows": SEGMENT_ROWS}

    def __init__(self, ids: NDArray[np.int64], segments: Sequence[Any]) -> None:
        self._ids = ids  # (n,)
        self._segments = segments  # FAISS indexes, at least one
        self._starts = np.cumsum([0, *(segment.ntotal for segment in segments)])  # (segments + 1,)
        self._dimension: int = segments[0].d
        self._codes = [_codes(segment) for segment in segments]  # each (rows, 2 * dimension) uint8

    @classmethod
    def build(cls, rows: Iterable[Chunk], path: Path, dimension: int) -> None:
        path.mkdir()
        all_ids = [np.empty(0, np.int64)]
        segment, written = _empty(dimension), 0
        for ids, chunk in checked(rows, dimension):
            all_ids.append(ids)
            rest = chunk
            while len(rest):
                room = SEGMENT_ROWS - segment.ntotal
                segment.add_sa_codes(rest[:room].view(np.uint8))
                rest = rest[room:]
                if segment.ntotal == SEGMENT_ROWS:
                    _write(segment, path / f"segment-{written:05}.faiss")
                    written += 1
                    segment.reset()  # keeps its memory for the next one
        if segment.ntotal or not written:  # one without rows keeps the dimension
            _write(segment, path / f"segment-{written:05}.faiss")
        np.save(path / IDS_FILE, np.concatenate(all_ids))

    @classmethod
    def open(cls, path: Path) -> Self:
        ids = load_ids(path)
        segments = [_read(file) for file in sorted(path.glob("segment-*.faiss"))]
        if len({segment.d for segment in segments}) != 1 or sum(segment.ntotal for segment in segments) != len(ids):
            raise DamagedError(f"{path} does not hold one row for each id; the index must be rebuilt.")
        return cls(ids, segments)

    def __len__(self) -> int:
        return len(self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        queries = checked_queries(queries, k, self._dimension)
        positions = None if allowed is None else positions_of(self._ids, allowed)
        scores = [np.empty((len(queries), 0), np.float32)]
        found = [np.empty((len(queries), 0), np.int64)]
        with _threads_for(len(queries)):
            for number, start in enumerate(self._starts[:-1]):
                local = None if positions is None else self._within(positions, number)
                part_scores, part = self._search_segment(number, queries, k, local)
                scores.append(part_scores)
                found.append(part + start)
        return self._best(np.concatenate(scores, axis=1), np.concatenate(found, axis=1), k)

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        positions = positions_of_all(self._ids, ids)
        rows = np.empty((len(positions), 2 * self._dimension), np.uint8)
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(owners):
            here = owners == number
            rows[here] = self._codes[number][positions[here] - self._starts[number]]
        return rows.view(np.float16)

    def _within(self, positions: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Ascending positions in the index -> those of one segment, counted from its first row."""
        start, end = self._starts[number], self._starts[number + 1]
        first, last = np.searchsorted(positions, (start, end))
        local: NDArray[np.int64] = positions[first:last] - start
        return local

    def _search_segment(
        self, number: int, queries: NDArray[np.float32], k: int, local: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best min(k, rows, allowed ones) of a segment: scores and positions in it, both (q, m).
        `local`: ascending positions to which the search is confined."""
        faiss = _faiss()
        segment = self._segments[number]
        rows = segment.ntotal
        count = rows if local is None else len(local)
        k = min(k, count)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if local is None or count == rows:
            scores, found = segment.search(queries, k)
        elif count <= GATHER_SHARE * rows:
            copy = _empty(self._dimension)
            copy.add_sa_codes(self._codes[number][local])
            scores, found = copy.search(queries, k)
            return scores, local[found]
        else:
            bits = np.zeros(rows, bool)
            bits[local] = True
            selector = faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
            scores, found = segment.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return scores, found

    def _best(
        self, scores: NDArray[np.float32], positions: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Candidates of all segments, both (q, c) -> the best k: scores descending, equal ones by id."""
        order = np.lexsort((positions, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), self._ids[np.take_along_axis(positions, order, axis=1)]


@contextmanager
def _threads_for(queries: int) -> Iterator[None]:
    """One OpenMP thread where there is one query. OpenMP keeps this number for each calling thread by itself,
    so that searches on other threads are not touched; it is put back for the sake of the caller."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    if queries > 1 or before == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _faiss() -> Any:
    """FAISS, imported when it is first needed; its stubs do not know its own Python wrappers, so it is Any."""
    import faiss

    return faiss


def _empty(dimension: int) -> Any:
    faiss = _faiss()
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _codes(segment: Any) -> NDArray[np.uint8]:
    """The stored rows of a segment as bytes, (rows, 2 * dimension), where they lie. They live as long as it does."""
    faiss = _faiss()
    if not segment.ntotal:
        return np.empty((0, segment.code_size), np.uint8)
    flat: NDArray[np.uint8] = faiss.rev_swig_ptr(segment.codes.data(), segment.ntotal * segment.code_size)
    return flat.reshape(segment.ntotal, segment.code_size)


def _write(segment: Any, path: Path) -> None:
    """Write a segment. OSError where the disk refuses."""
    faiss = _faiss()
    try:
        faiss.write_index(segment, str(path))
    except RuntimeError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    # FAISS says nothing when the last buffered bytes do not reach the disk.
    if path.stat().st_size <= segment.ntotal * segment.code_size:
        raise OSError(f"{path} could not be written whole; the disk may be full.")


def _read(path: Path) -> Any:
    """Map a segment. DamagedError where it is not one that `_write` wrote."""
    faiss = _faiss()
    try:
        segment = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise DamagedError(f"{path} cannot be read as an index; it must be rebuilt.") from error
    if (
        not isinstance(segment, faiss.IndexScalarQuantizer)
        or segment.sq.qtype != faiss.ScalarQuantizer.QT_fp16
        or segment.metric_type != faiss.METRIC_INNER_PRODUCT
        or segment.code_size != 2 * segment.d
        or segment.codes.size() != segment.ntotal * segment.code_size
    ):
        raise DamagedError(f"{path} is not an index of float16 rows; it must be rebuilt.")
    return segment
