"""The oracle: an exact search that is plain to read. Every other kind is checked against it.

On disk: `ids.npy` and one `rows-NNNNN.npy` (float16) for each chunk it was built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import DamagedError
from mmsearch.vectors.rows import IDS_FILE, Chunk, checked, checked_queries, load_array, load_ids, positions_of_all


class ExactIndex:
    """Compares each query with each row at double precision. For checking and for small collections."""

    exact: ClassVar[bool] = True
    parameters: ClassVar[Mapping[str, str | int]] = {"storage": "float16"}

    def __init__(self, ids: NDArray[np.int64], blocks: Sequence[NDArray[np.float16]]) -> None:
        self._ids = ids  # (n,)
        self._blocks = blocks  # at least one; together (n, dimension)

    @classmethod
    def build(cls, rows: Iterable[Chunk], path: Path, dimension: int) -> None:
        path.mkdir()
        all_ids = [np.empty(0, np.int64)]
        np.save(path / "rows-00000.npy", np.empty((0, dimension), np.float16))  # keeps the dimension of no rows
        for number, (ids, block) in enumerate(checked(rows, dimension), start=1):
            np.save(path / f"rows-{number:05}.npy", block)
            all_ids.append(ids)
        np.save(path / IDS_FILE, np.concatenate(all_ids))

    @classmethod
    def open(cls, path: Path) -> Self:
        ids = load_ids(path)
        blocks = [load_array(file) for file in sorted(path.glob("rows-*.npy"))]
        shapes = {block.shape[1:] for block in blocks}
        if len(shapes) != 1 or len(shapes.pop()) != 1 or sum(map(len, blocks)) != len(ids):
            raise DamagedError(f"{path} does not hold one row for each id; the index must be rebuilt.")
        if any(block.dtype != np.float16 for block in blocks):
            raise DamagedError(f"{path} holds rows that are not float16; the index must be rebuilt.")
        return cls(ids, [block.view(np.float16) for block in blocks])

    def __len__(self) -> int:
        return len(self._ids)

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        queries = checked_queries(queries, k, self._blocks[0].shape[1])
        parts = [queries.astype(np.float64) @ block.T.astype(np.float64) for block in self._blocks]
        scores = np.concatenate(parts, axis=1).astype(np.float32)  # (q, n)
        ids = self._ids
        if allowed is not None:
            may = np.isin(ids, allowed)
            scores, ids = scores[:, may], ids[may]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # ids ascend, so equal scores stay by id
        return np.take_along_axis(scores, order, axis=1), ids[order]

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        return np.concatenate(self._blocks)[positions_of_all(self._ids, ids)]
