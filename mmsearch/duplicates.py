"""Which pictures are the same, in three tiers that are kept apart. Nothing is ever deleted: a keeper is suggested.

    exact      one content, several files
    near       one picture, re-encoded, resized, brightened: perceptual hashes that agree
    semantic   pictures of the same thing, cropped copies, series: vectors of the current space that are close

Each tier compares what the one before left: near the contents, semantic the keepers of near. So a pair is in one tier
alone, and whoever deletes all but the keepers of all tiers keeps one of each group. In a group every two are alike
(complete linkage), so that groups don't chain from one picture to quite another. Missing files play no part.

A perceptual hash (16 bytes) has a bit for each step between the cells of a 9 x 9 picture: brighter or not, to the
right (8 bytes) and downwards (8 bytes). Where a pattern has little detail, few bits differ whatever it shows: a shirt
on a table, a lamp at night. So what counts is the share of bits that differ among those places where the pattern turns
from brighter to darker or back (`detail`, 0 to 112). Figures in benchmarks/duplicates.md; the cosine of vectors as a
second witness did not raise precision there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import likeness
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.likeness import CopyRow
from mmsearch.catalog.read import SpaceRow
from mmsearch.combine import complete_linkage
from mmsearch.errors import UsageError
from mmsearch.types import Copy, DuplicateGroup, Duplicates, Progress, Tier

# Chosen on Flickr8k dev (benchmarks/duplicates.py).
NEAR_SHARE = 4  # a quarter of the detail may differ
LEAST_DETAIL = 12  # less says nothing: blank pages, a plain gradient
SIMILARITY = 0.9  # cosine

MOST_PAIRS = 5_000_000  # kept in memory: 3,000 frames of one scene are 4.5 million
BLOCK = 1024  # pictures compared with all others at a time, or fewer
COSINES_AT_ONCE = 16_000_000
ROUNDING = 1e-6  # equal vectors have a cosine that is as far from 1

_ROW_STEPS = 0x7F7F7F7F7F7F7F7F  # a row of 8 bits has 7 places where it may turn
_COLUMN_STEPS = 0x00FFFFFFFFFFFFFF
_BITS = np.array([number.bit_count() for number in range(256)], np.uint8)

Report = Callable[[Progress], None]


def duplicates(
    catalog: Catalog, space: SpaceRow | None, tiers: Collection[Tier], similarity: float, on_progress: Report
) -> Duplicates:
    """See `Engine.duplicates`. space: whose vectors the semantic tier compares; None where there are none yet."""
    groups: list[DuplicateGroup] = []
    notices: list[str] = []
    files = _Files(catalog)
    if "exact" in tiers:
        with catalog.reading() as connection:
            several = likeness.images_with_copies(connection)
        groups += [_group("exact", copies, 1.0) for copies in files.of(several).values() if len(copies) > 1]
    if {"near", "semantic"} & set(tiers):
        with catalog.reading() as connection:
            images, hashes = likeness.present_hashes(connection)
        near = _with_files(files, "near", _near(images, hashes, on_progress, notices))
        if "near" in tiers:
            groups += near
        if "semantic" in tiers and space is not None:
            with catalog.reading() as connection:
                images, rows = likeness.present_vectors(connection, space.id, space.dimension)
            told = ~np.isin(images, [copy.id for group in near for copy in group.others])
            alike = _semantic(images[told], rows[told], similarity, on_progress, notices)
            groups += _with_files(files, "semantic", alike)
    groups.sort(key=lambda group: (get_args(Tier).index(group.tier), _name(group.keeper)))
    if files.changed:
        notices.append(
            f"{len(files.changed)} files among them are not as the last index run saw them, or away, such as "
            f"{min(files.changed)}; they were left out. `mmsearch index` brings the collection up to date."
        )
    return Duplicates(tuple(groups), tuple(notices))


def check_tiers(tiers: Sequence[Tier]) -> list[Tier]:
    """UsageError where there is none, or one that is not known."""
    known = get_args(Tier)
    for tier in tiers:
        if tier not in known:
            raise UsageError(f"There is no tier {tier!r}; valid are: {', '.join(known)}.")
    if not tiers:
        raise UsageError(f"Name at least one tier of duplicates: {', '.join(known)}.")
    return list(tiers)


def check_similarity(similarity: float | None, tiers: Sequence[Tier]) -> float:
    """The cosine to use. UsageError where it is none, or no tier uses it."""
    if similarity is None:
        return SIMILARITY
    if "semantic" not in tiers:
        raise UsageError("The similarity is for the semantic tier, which was not asked for.")
    if not isinstance(similarity, int | float) or not 0 < similarity <= 1:
        raise UsageError(f"The similarity is {similarity!r}; it must be a number above 0 and up to 1.")
    return float(similarity)


# --- near -------------------------------------------------------------------------------------------------------


def same_picture(a: bytes | None, b: bytes | None) -> bool:
    """Whether two perceptual hashes are of one picture. False where one is not known."""
    if a is None or b is None or len(a) != 16 or len(b) != 16:
        return False
    detail = LEAST_DETAIL - 1
    for one in (a, b):
        row, column = _steps(int.from_bytes(one[:8]), int.from_bytes(one[8:]))
        mine = row.bit_count() + column.bit_count()
        if mine < LEAST_DETAIL:
            return False
        detail = mine if one is a else min(detail, mine)
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count() * NEAR_SHARE <= detail


class PictureHashes:
    """Perceptual hashes in the order they came; a newcomer is compared with all of them at once."""

    def __init__(self) -> None:
        self._hashes = np.zeros((64, 16), np.uint8)
        self._detail = np.zeros(64, np.int64)
        self._count = 0

    def first_same(self, hashed: bytes | None) -> int | None:
        """The number of the first that is of the same picture."""
        if hashed is None or len(hashed) != 16:
            return None
        one = np.frombuffer(hashed, np.uint8)
        detail = np.minimum(self._detail[: self._count], _detail(one[None].copy())[0])
        differ = _BITS[self._hashes[: self._count] ^ one].sum(axis=1, dtype=np.int64)
        same = np.flatnonzero((detail >= LEAST_DETAIL) & (differ * NEAR_SHARE <= detail))
        return int(same[0]) if len(same) else None

    def add(self, hashed: bytes | None) -> None:
        """One that is not known is like no other."""
        if self._count == len(self._detail):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._detail = np.concatenate([self._detail, np.zeros_like(self._detail)])
        if hashed is not None and len(hashed) == 16:
            self._hashes[self._count] = np.frombuffer(hashed, np.uint8)
            self._detail[self._count] = _detail(self._hashes[self._count : self._count + 1])[0]
        self._count += 1


def _steps(row: Any, column: Any) -> tuple[Any, Any]:
    """The places where a pattern turns, as bits; of one hash as integers, or of many as arrays of uint64."""
    return (row ^ (row >> 1)) & _ROW_STEPS, (column ^ (column >> 8)) & _COLUMN_STEPS


def _detail(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n, 16) -> (n,): in how many places the pattern turns."""
    halves = hashes.view(">u8").astype(np.uint64)
    row, column = _steps(halves[:, 0], halves[:, 1])
    turns: NDArray[np.int64] = _BITS[np.stack([row, column], axis=1).view(np.uint8)].sum(axis=1, dtype=np.int64)
    return turns


def _near(
    images: NDArray[np.int64], hashes: NDArray[np.uint8], on_progress: Report, notices: list[str]
) -> list[tuple[list[int], float]]:
    """Groups of images, and the share of bits that the two least alike of each have in common."""
    if not len(images):
        return []
    told = _detail(hashes) >= LEAST_DETAIL
    images = images[told]
    kinds, kind_of = np.unique(hashes[told].view("V16").reshape(-1), return_inverse=True)
    patterns = np.frombuffer(kinds.tobytes(), np.uint8).reshape(-1, 16)
    pairs = _near_pairs(patterns, on_progress)
    pairs.tell(notices, "near")
    alike = complete_linkage(len(patterns), *pairs.all(), pairs.threshold)
    same: dict[int, list[int]] = {}
    for image, kind in zip(images.tolist(), kind_of.reshape(-1).tolist(), strict=True):
        same.setdefault(kind, []).append(image)
    grouped = {kind for group in alike for kind in group}
    alike += [[kind] for kind, mine in same.items() if len(mine) > 1 and kind not in grouped]
    return [
        (sorted(image for kind in group for image in same[kind]), 1 - _most_bits(patterns[group]) / 128)
        for group in alike
    ]


def _near_pairs(patterns: NDArray[np.uint8], on_progress: Report) -> _Pairs:
    """Pairs of different hashes, their distance the share of the detail that differs."""
    import faiss

    pairs = _Pairs(1 / NEAR_SHARE)
    detail = _detail(patterns)
    index = faiss.IndexBinaryFlat(128)
    index.add(patterns)
    radius = int(detail.max(initial=0)) // NEAR_SHARE + 1  # what range_search gives is nearer than that
    for start in range(0, len(patterns), BLOCK):
        on_progress(Progress("comparing", done=start, total=len(patterns)))
        ends, bits, others = index.range_search(patterns[start : start + BLOCK], radius)
        mine = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends).astype(np.int64))
        later = others > mine
        mine, others, bits = mine[later], others[later], bits[later]
        pairs.add(mine, others, bits / np.minimum(detail[mine], detail[others]))
    return pairs


def _most_bits(patterns: NDArray[np.uint8]) -> int:
    """In how many bits the two least alike of some hashes differ."""
    return max(int(_BITS[patterns ^ one].sum(axis=1, dtype=np.int64).max()) for one in patterns)


# --- semantic ---------------------------------------------------------------------------------------------------


def _semantic(
    images: NDArray[np.int64], rows: NDArray[np.float16], similarity: float, on_progress: Report, notices: list[str]
) -> list[tuple[list[int], float]]:
    """Groups of images, and the cosine of the two least alike of each."""
    wide = rows.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    least = similarity - ROUNDING
    pairs = _Pairs(1 - least)
    step = min(BLOCK, max(1, COSINES_AT_ONCE // max(1, len(wide))))
    for start in range(0, len(wide), step):
        on_progress(Progress("comparing", done=start, total=len(wide)))
        cosines = wide[start : start + step] @ wide[start:].T  # (step, all that follow)
        mine, others = np.nonzero(cosines >= least)
        later = others > mine
        mine, others = mine[later], others[later]
        pairs.add(start + mine, start + others, np.maximum(0, 1 - cosines[mine, others]))
    pairs.tell(notices, "semantic")
    groups = complete_linkage(len(wide), *pairs.all(), pairs.threshold)
    return [(images[group].tolist(), float((wide[group] @ wide[group].T).min())) for group in groups]


# --- pairs ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pairs:
    """Pairs within a threshold. Where they are too many for the memory, the nearest half is kept, and the threshold
    with it: groups are then only tighter than they might be."""

    threshold: float
    narrowed: bool = False
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = field(default_factory=list)
    count: int = 0

    def add(self, first: NDArray[Any], second: NDArray[Any], distance: NDArray[Any]) -> None:
        near = distance <= self.threshold
        part = first[near].astype(np.int32), second[near].astype(np.int32), distance[near].astype(np.float32)
        self.parts.append(part)
        self.count += len(part[0])
        if self.count > MOST_PAIRS:
            first, second, distance = self.all()
            middle = np.partition(distance, self.count // 2)[self.count // 2]
            kept = distance < middle
            self.threshold = float(distance[kept].max(initial=0))
            self.parts = [(first[kept], second[kept], distance[kept])]
            self.count, self.narrowed = int(kept.sum()), True

    def all(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """first, second, distance."""
        if not self.parts:
            return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
        first, second, distance = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        self.parts = [(first, second, distance)]
        return first, second, distance

    def tell(self, notices: list[str], tier: Tier) -> None:
        if self.narrowed:
            notices.append(
                f"More than {MOST_PAIRS:,} pairs of pictures are alike ({tier}); only the nearest of them were grouped."
            )


# --- keepers ----------------------------------------------------------------------------------------------------


class _Files:
    """The files of images as they are now. What may be deleted because another is kept must be what was compared, so
    files that changed or went since they were indexed are left out; so are several names of one file (links)."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.changed: set[Path] = set()

    def of(self, images: Sequence[int]) -> dict[int, list[Copy]]:
        """image -> its files, each a copy by itself, the one to keep first; images without any are left out."""
        with self._catalog.reading() as connection:
            rows = likeness.copies(connection, images)
        found = {image: self._there(mine) for image, mine in rows.items()}
        return {image: sorted(copies, key=_preference) for image, copies in found.items() if copies}

    def _there(self, rows: Sequence[CopyRow]) -> list[Copy]:
        keyed, found = [], dict[tuple[int, int], Copy]()
        for row in rows:
            if not row.root:
                keyed.append(_copy(row, None))
                continue
            path = Path(os.fsdecode(os.path.join(row.root, row.relative)))
            try:
                state = path.stat()
            except OSError:
                state = None
            if state is None or (state.st_size, state.st_mtime_ns) != (row.size, row.mtime_ns):
                self.changed.add(path)
                continue
            same = found.get((state.st_dev, state.st_ino))
            if same is None or (same.path is not None and same.path.is_symlink()):
                found[state.st_dev, state.st_ino] = _copy(row, path)
        return [*found.values(), *keyed]


def _copy(row: CopyRow, path: Path | None) -> Copy:
    return Copy(
        id=row.image,
        sha256=row.sha256.hex(),
        path=path,
        paths=() if path is None else (path,),
        key=None if row.root else os.fsdecode(row.relative),
        width=row.width,
        height=row.height,
        size_bytes=row.size,
        taken_at=row.taken_at,
        changed_at=_moment(row.mtime_ns) if row.root else None,
    )


def _moment(nanoseconds: int) -> datetime | None:
    """Local time, as cameras write it; None for what no calendar holds."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000)
    except (OverflowError, OSError, ValueError):
        return None


def _with_files(files: _Files, tier: Tier, groups: Sequence[tuple[list[int], float]]) -> list[DuplicateGroup]:
    """Groups of images -> with their files."""
    there = files.of([image for images, _ in groups for image in images])
    made = []
    for images, alike in groups:
        copies = []
        for mine in (there[image] for image in images if image in there):
            paths = tuple(copy.path for copy in mine if copy.path is not None)
            keys = [copy.key for copy in mine if copy.key is not None]
            copies.append(replace(mine[0], paths=paths, key=keys[0] if keys else None))
        if len(copies) > 1:
            made.append(_group(tier, copies, alike))
    return made


def _name(copy: Copy) -> tuple[bytes, str]:
    return os.fsencode(copy.path or copy.key or ""), copy.sha256


# What speaks for a copy, the strongest first; the least value wins. An original is older than its copies.
_REASONS: tuple[tuple[str, Callable[[Copy], Any]], ...] = (
    ("has a file", lambda copy: copy.path is None),
    ("most pixels", lambda copy: -(copy.width or 0) * (copy.height or 0)),
    ("knows when it was taken", lambda copy: copy.taken_at is None),
    ("largest file", lambda copy: -copy.size_bytes),
    ("oldest", lambda copy: copy.taken_at or copy.changed_at or datetime.max),
    ("oldest", lambda copy: copy.changed_at or datetime.max),
    ("shortest path", lambda copy: len(_name(copy)[0])),
    ("first by name", _name),
)


def _preference(copy: Copy) -> tuple[Any, ...]:
    return tuple(value(copy) for _, value in _REASONS)


def _group(tier: Tier, copies: Iterable[Copy], similarity: float) -> DuplicateGroup:
    """The keeper, the others in the order in which they would be kept, and what decided."""
    keeper, *others = sorted(copies, key=_preference)
    reason = next(name for name, value in _REASONS if value(keeper) != value(others[0]))
    return DuplicateGroup(tier, keeper, tuple(others), reason, similarity)
