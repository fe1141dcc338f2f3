"""From a ranking to the order in which answers are shown: cut, sort, fold, diversify. Each step keeps a total order.

A ranking is a function: n -> its first n candidates, fewer where there are fewer. So is what each step makes of it, and
pages stay stable: a longer beginning only adds to a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmsearch.catalog.read import Found
from mmsearch.combine import diverse_order
from mmsearch.duplicates import PictureHashes

FOLD_DEPTH = 200  # candidates that are looked at for near-duplicates, whatever the size of the page
DIVERSE_POOL = 200  # candidates among which diversity chooses: their cosines to one another cost the square of this


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may become a hit. score: what ranks. cosine: to the query, where the probability hangs on it. parts: of the
    score, where it is not a cosine. certain: relevant whatever the cosine (every word was found)."""

    found: Found
    score: float
    cosine: float | None = None
    parts: tuple[float, ...] = ()
    certain: bool = False
    folded: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """first: n -> the first n candidates. mixed: so many at the beginning are not in the order of their cosines."""

    first: Callable[[int], list[Candidate]]
    mixed: int = 0

    def where(self, true: Callable[[Candidate], bool]) -> Callable[[int], list[Candidate]]:
        """n -> the first n candidates for which `true` holds, which must fall with the cosine."""

        def chosen(n: int) -> list[Candidate]:
            size = max(n, 1)
            while True:
                got = self.first(size)
                kept = [one for one in got if true(one)]
                ended = len(got) < size or (len(got) > self.mixed and not true(got[-1]))
                if ended or len(kept) >= n:
                    return kept[:n]
                size *= 2

        return chosen


def likely(ranking: Ranking, probable: Callable[[Candidate], bool]) -> Ranking:
    """Only what is probable enough."""
    return Ranking(ranking.where(probable), ranking.mixed)


def relevant_first(
    ranking: Ranking,
    relevant: Callable[[Candidate], bool],
    order: Callable[[Sequence[Candidate]], Iterable[Candidate]],
    *,
    most: int | None = None,
) -> Ranking:
    """What is relevant (at most `most` of it), in an order of its own; then the others as they were."""
    ahead: list[Candidate] | None = None

    def first(n: int) -> list[Candidate]:
        nonlocal ahead
        if ahead is None:
            whole = ranking.where(relevant)
            size = most or 64
            while len(found := whole(size)) == size and most is None:
                size *= 4
            ahead = list(order(found))
        if n <= len(ahead):
            return ahead[:n]
        before = {one.found.owner for one in ahead}
        others = [one for one in ranking.first(n) if one.found.owner not in before]
        return [*ahead, *others][:n]

    return Ranking(first, ranking.mixed)


def diversified(found: Sequence[Candidate], diversity: float) -> list[Candidate]:
    """Relevant ones first that are unlike those before them."""
    width = max((len(one.found.row) for one in found), default=0)
    rows = np.zeros((len(found), width))
    for row, one in zip(rows, found, strict=True):
        if len(one.found.row):
            row[:] = one.found.row / np.linalg.norm(one.found.row.astype(np.float64))
    scores = np.array([one.score for one in found])
    return [found[number] for number in diverse_order(rows, scores, diversity)]


def unique(ranking: Ranking, hashes: Callable[[list[int]], dict[int, bytes | None]]) -> Ranking:
    """Near-duplicates folded into the first of them. hashes: images -> their perceptual hashes.

    What is folded is known as far down as was looked: FOLD_DEPTH candidates, or more where more were needed."""
    folder = _Folder()
    ended = False

    def first(n: int) -> list[Candidate]:
        nonlocal ended
        size = max(2 * n + 16, FOLD_DEPTH)
        while not ended and (len(folder.groups) < n or folder.seen < size):
            got = ranking.first(size)
            ended = len(got) < size
            new = got[folder.seen :]
            known = hashes([one.found.image for one in new])
            for one in new:
                folder.add(one, known.get(one.found.image))
            size *= 2
        return folder.chosen(n)

    return Ranking(first, ranking.mixed)


class _Folder:
    """Groups of near-duplicates in the order of their first members; each newcomer is compared with all of these."""

    def __init__(self) -> None:
        self.seen = 0
        self.groups: list[list[Candidate]] = []
        self._heads = PictureHashes()

    def add(self, one: Candidate, hashed: bytes | None) -> None:
        self.seen += 1
        same = self._heads.first_same(hashed)
        if same is None:
            self._heads.add(hashed)
            self.groups.append([one])
        else:
            self.groups[same].append(one)

    def chosen(self, n: int) -> list[Candidate]:
        return [replace(group[0], folded=tuple(group[1:])) for group in self.groups[:n]]
