"""What every vector index offers. Immutable once built; the newest rows are scanned beside it by `searching`.

In: float16 rows with ascending integer ids. Out: for each query the best rows by inner product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmsearch.vectors.rows import Chunk


class VectorIndex(Protocol):
    """Rows of one space and one kind, searchable by inner product. Rows hold finite numbers only.

    exact: whether every row is compared with every query. parameters: what else decided the answers, for people
    who read `generation.json`. All methods may be called from several threads at once.
    """

    exact: ClassVar[bool]
    parameters: ClassVar[Mapping[str, str | int]]

    @classmethod
    def build(cls, rows: Iterable[Chunk], path: Path, dimension: int) -> None:
        """Stream chunks (ids (m,) int64 strictly ascending over all chunks, rows (m, dimension) float16) into the
        new folder `path`. Holds no more than a bounded number of rows in memory. No rows at all is a valid index.
        UsageError: ids or shapes that break this. OSError: the disk refuses; `path` is then worth nothing."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open what `build` wrote, memory-mapped where the kind allows. DamagedError: it is not that."""

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(q, dimension) unit-length queries -> scores (q, m) descending, equal ones by ascending id, and ids (q, m),
        where m = min(k, number of rows, allowed or not). `allowed`: strictly ascending ids to which the search is
        confined; ids that the index does not hold are passed over. Where equal scores lie across the k-th place, the
        index chooses which of them to keep, always the same."""

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """The stored rows of m ids in the order asked, repeats allowed -> (m, dimension), bit for bit as they were
        built. UsageError: an id that the index does not hold."""

    def __len__(self) -> int: ...
