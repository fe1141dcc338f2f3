"""What the index kinds share: checks of what comes in, and finding ids among stored ids. Plain NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import DamagedError, UsageError

# ids (m,), rows (m, dimension)
Chunk: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float16]]

IDS_FILE = "ids.npy"

# From this share of the stored ids on, a table over the range of ids beats a binary search for each wanted id:
# 0.2 against 1.4 ms where all of 100,000 are wanted; below 5 % the binary search wins.
TABLE_SHARE = 0.05
# How many bytes a row the table may take; beyond, ids are too scattered for it.
TABLE_BYTES_PER_ROW = 16


def checked(chunks: Iterable[Chunk], dimension: int) -> Iterator[Chunk]:
    """Pass on the chunks that hold rows, as contiguous arrays: ids (m,) int64, rows (m, dimension) float16.
    UsageError where shapes differ or ids do not ascend strictly over all chunks."""
    last: int | None = None
    for ids, rows in chunks:
        if ids.ndim != 1 or rows.shape != (len(ids), dimension) or rows.dtype != np.float16:
            raise UsageError(
                f"A chunk of an index is ids (m,) and float16 rows (m, {dimension}); "
                f"these are {ids.shape} and {rows.dtype} {rows.shape}."
            )
        if not len(ids):
            continue
        if (last is not None and ids[0] <= last) or not ascending(ids):
            raise UsageError("The ids of an index must ascend strictly, over all its chunks.")
        last = int(ids[-1])
        yield np.ascontiguousarray(ids, dtype=np.int64), np.ascontiguousarray(rows)


def checked_queries(queries: NDArray[np.float32], k: int, dimension: int) -> NDArray[np.float32]:
    """Queries as a contiguous (q, dimension) float32 array; UsageError where they are not that, or k is below 1."""
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1.")
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise UsageError(f"Queries have the shape {queries.shape}; this index needs (any number, {dimension}).")
    if not np.isfinite(queries).all():
        raise UsageError("A query vector holds values that are not finite numbers.")
    return np.ascontiguousarray(queries, dtype=np.float32)


def ascending(ids: NDArray[np.int64]) -> bool:
    """Whether each id is greater than the one before."""
    return bool((ids[1:] > ids[:-1]).all())


def load_ids(folder: Path) -> NDArray[np.int64]:
    """The ids that an index stored, (n,) int64 ascending, memory-mapped. DamagedError where they are not that."""
    path = folder / IDS_FILE
    ids = load_array(path)
    if ids.ndim != 1 or ids.dtype != np.int64 or not ascending(ids):
        raise DamagedError(f"{path} does not hold ascending ids; the index must be rebuilt.")
    return ids


def load_array(path: Path) -> NDArray[Any]:
    """A .npy file, memory-mapped. DamagedError where it cannot be read as one."""
    try:
        # A plain view: indexing a np.memmap itself is several times slower.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # NumPy reads the header as Python code; a damaged one fails in many ways
        raise DamagedError(f"{path} cannot be read as stored numbers; the index must be rebuilt.") from error


def positions_of(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the wanted ids lie among the stored ones; both ascend strictly. Those not stored are passed over.

    Example: ids [3, 5, 9], wanted [1, 5, 9] -> [1, 2].
    """
    if not len(ids) or not len(wanted):
        return np.empty(0, np.int64)
    lowest, highest = int(ids[0]), int(ids[-1])
    span = highest - lowest + 1
    if len(wanted) >= TABLE_SHARE * len(ids) and span <= TABLE_BYTES_PER_ROW * len(ids):
        inside = wanted[np.searchsorted(wanted, lowest) : np.searchsorted(wanted, highest, side="right")]
        table = np.zeros(span, bool)
        table[inside - lowest] = True
        return np.flatnonzero(table[ids - lowest])
    found = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    stored: NDArray[np.int64] = found[ids[found] == wanted]
    return stored


def positions_of_all(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted id lies among the stored ones, in the order asked. UsageError where one is not stored."""
    found = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
    if len(wanted) and (not len(ids) or not np.array_equal(ids[found], wanted)):
        raise UsageError("Vectors were asked of ids that this index does not hold.")
    return found
