"""Facets: how the images that satisfy filters are spread over months, folders, cameras, tags, formats and places.

In: filters. Out: `Facets`. As everywhere, an image satisfies filters by one of its present files; a folder counts the
images of which such a file lies in it or below, so that its count is what the filter `inside` would leave.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch import roots
from mmsearch.catalog import read, where
from mmsearch.catalog.columns import Coded, ColumnReader, Columns, columns, matching_files
from mmsearch.catalog.memory import remember
from mmsearch.filters import Filters, Node
from mmsearch.types import Count, Facets, FolderCount

MOST_POINTS = 2000  # as many as a map of them can show
KEPT = 32  # facets of filters, for a state of the catalog


def facets(reader: ColumnReader, filters: Filters) -> Facets:
    """See `Engine.facets`. Kept until the catalog changes."""
    tree = filters.tree()
    with reader.reading() as connection:
        if tree is not None:
            where.check(connection, tree)
        return remember(connection, "facets", tree, lambda: _count(connection, tree), KEPT)


def _count(connection: Connection, filters: Node | None) -> Facets:
    held = columns(connection)
    tree = remember(connection, "folders", None, lambda: _folder_tree(connection, held.folders), most=1)
    files = np.arange(len(held.files))
    if filters is not None:
        files = np.searchsorted(held.files, np.sort(matching_files(connection, filters)))
    owners = held.file_images[files]
    chosen = np.zeros(len(held.images), bool)
    chosen[owners] = True
    placed = chosen & ~np.isnan(held.latitudes) & ~np.isnan(held.longitudes)
    total = int(chosen.sum())
    places = int(placed.sum())
    months = _counts(held.months, chosen)
    cameras = _counts(held.cameras, chosen)
    return Facets(
        total=total,
        dates=tuple(sorted(months, key=lambda one: one.name)),
        folders=tree.counts(held.folders.codes[files], owners),
        cameras=_frequent(cameras),
        tags=_frequent(_counts(held.tags, chosen[held.tagged])),
        formats=_frequent(_counts(held.formats, chosen)),
        places=places,
        points=_points(held, np.flatnonzero(placed)),
        without_date=total - sum(one.count for one in months),
        without_place=total - places,
        without_camera=total - sum(one.count for one in cameras),
    )


def _counts(column: Coded, chosen: NDArray[np.bool_]) -> list[Count]:
    codes = column.codes[chosen]
    found = np.bincount(codes[codes >= 0], minlength=len(column.values)).tolist()
    return [Count(name, count) for name, count in zip(column.values, found, strict=True) if count]


def _frequent(counts: list[Count]) -> tuple[Count, ...]:
    return tuple(sorted(counts, key=lambda one: (-one.count, one.name)))


def _points(held: Columns, placed: NDArray[np.int64]) -> tuple[tuple[float, float, int], ...]:
    """All of them, or so many evenly from the first that was added to the last."""
    if len(placed) > MOST_POINTS:
        placed = placed[np.linspace(0, len(placed) - 1, MOST_POINTS).round().astype(np.int64)]
    values = (held.latitudes[placed], held.longitudes[placed], held.images[placed])
    return tuple(zip(*(one.tolist() for one in values), strict=True))


# --- folders ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tree:
    """nodes: label, absolute path and depth of each folder, parents before what is in them. above: (folders of the
    column, depths), the node at each depth on the way to a folder; -1 below it."""

    nodes: tuple[tuple[str, Path, int], ...]
    above: NDArray[np.int64]

    def counts(self, folders: NDArray[np.int32], owners: NDArray[np.int64]) -> tuple[FolderCount, ...]:
        """folders, owners: of the files that count. Each image counts once in a folder."""
        owners, folders = owners[folders >= 0], folders[folders >= 0]
        once = len(np.unique(owners)) == len(owners)
        found = np.zeros(len(self.nodes), np.int64)
        for nodes in self.above.T:
            here = nodes[folders]
            there = here >= 0
            here = here[there]
            if not once:
                here = np.unique(owners[there] * len(self.nodes) + here) % len(self.nodes)
            found += np.bincount(here, minlength=len(self.nodes))
        return tuple(
            FolderCount(label, path, count, depth)
            for (label, path, depth), count in zip(self.nodes, found.tolist(), strict=True)
            if count
        )


def _folder_tree(connection: Connection, folders: Coded) -> _Tree:
    """A root inside another one has its place in that one's tree, as its files have in the filter `inside`."""
    known = read.roots(connection)
    names = roots.names(known)
    tops = {one.id: min((other for other in known if roots.inside(one.path, other.path)), key=_length) for one in known}
    ways: list[tuple[bytes, ...]] = []  # the parts of each folder's path, its top first
    labels: dict[bytes, str] = {}
    for root_id, path, relative in folders.values:
        top = tops[root_id]
        labels[top.path] = names[top.id]
        whole = os.path.join(path, relative)[len(top.path) :].strip(b"/")
        ways.append((top.path, *(whole.split(b"/") if whole else ())))
    every = sorted({way[: end + 1] for way in ways for end in range(len(way))})
    numbers = {way: number for number, way in enumerate(every)}
    above = np.full((len(ways), max(map(len, ways), default=0)), -1, np.int64)
    for row, way in zip(above, ways, strict=True):
        row[: len(way)] = [numbers[way[: end + 1]] for end in range(len(way))]
    nodes = tuple(
        (
            "/".join((labels[way[0]].rstrip("/"), *map(os.fsdecode, way[1:]))) or "/",
            Path(os.fsdecode(os.path.join(*way))),
            len(way) - 1,
        )
        for way in every
    )
    return _Tree(nodes, above)


def _length(root: read.RootRow) -> int:
    return len(root.path)
