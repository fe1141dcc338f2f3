"""Which pictures each step takes: a pure function of the seed and the step, so that a run can begin anywhere.

In: how many pictures each set has, and its weight. Out: rows, counted through all sets. An epoch takes each picture of
one set at most once, in a new random order. Of several sets it takes as many rows as they have pictures together, of
each in proportion to its weight, evenly over the epoch; a set that is too small for its share comes round again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import UsageError

_EPOCH = 1  # keeps these draws apart from those of a step (batches.py)


class Order:
    """counts, weights: of the sets. size: rows of a step, at most; `notices` says where it had to be fewer.
    world: processes that share a step; each takes as many rows as the others."""

    def __init__(
        self, counts: Sequence[int], weights: Sequence[float], *, size: int, seed: int, world: int = 1
    ) -> None:
        total = sum(counts)
        self.size = min(size, total) // world * world
        if self.size < max(2, world):
            raise UsageError(
                f"A batch of {min(size, total)} pictures is too small for {world} processes; it takes 2 at least, and "
                "one for each: add pictures, or set a larger batch."
            )
        self.notices: list[str] = []
        if self.size < size:
            self.notices.append(f"A batch has {self.size:,} rows instead of {size:,}: there are {total:,} pictures.")
        self.per_epoch = total // self.size
        self._seed = seed
        self._counts = list(counts)
        self._shares = _shares(self.per_epoch * self.size, weights)
        self._rows = lru_cache(maxsize=2)(self._draw)  # the prefetching thread may be an epoch ahead

    def rows(self, step: int) -> NDArray[np.int64]:
        """(size,) int64, the pictures of a step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        return self._rows(epoch)[place * self.size : (place + 1) * self.size]

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        """(per_epoch * size,) rows of an epoch."""
        drawn, places, before = [], [], 0
        for number, (count, share) in enumerate(zip(self._counts, self._shares, strict=True)):
            chance = np.random.default_rng([self._seed, _EPOCH, epoch, number])
            rounds = [chance.permutation(count) for _ in range(-(-share // count))]
            drawn.append(before + np.concatenate([*rounds, np.empty(0, np.int64)])[:share])
            places.append((np.arange(share) + chance.random(share)) / max(share, 1))  # one in each of `share` parts
            before += count
        return np.concatenate(drawn).astype(np.int64)[np.argsort(np.concatenate(places), kind="stable")]


def _shares(rows: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `rows`, in proportion to the weights; the largest remainders are rounded up."""
    exact = np.asarray(weights, np.float64) / sum(weights) * rows
    shares = np.floor(exact).astype(np.int64)
    for one in np.argsort(shares - exact, kind="stable")[: rows - int(shares.sum())]:
        shares[one] += 1
    return [int(share) for share in shares]
