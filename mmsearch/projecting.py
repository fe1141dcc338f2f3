"""Vectors -> places on a map: near vectors come to lie near each other, as far as two dimensions allow.

    project     (n, d) rows -> (n, 2) in 0..1, by t-SNE (openTSNE, extra `map`), else by principal components
    landmarks   where on the map each of several groups lies densest, the telling ones that fit beside each other

The same rows give the same map: neighbours are exact, the beginning is that of the principal components, and the number
of threads is fixed, since sums in another order would lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

Report = Callable[[int, int], None]  # done, total

TSNE, PCA = "t-SNE (openTSNE)", "principal components"
DIMENSIONS = 50  # of the rows whose neighbours are looked for: more only slow it down (as is usual before t-SNE)
PERPLEXITY = 30.0
PER_PERPLEXITY = 6  # images; fewer would all be neighbours
FEWEST = 20  # images; neighbourhoods of fewer say nothing
THREADS = 2
EARLY, LATE = 250, 500  # iterations, as usual: first with exaggeration, which sorts, then with less or without
EARLY_EXAGGERATION = 12.0
# Large maps keep some of it to the end (Kobak and Berens 2019, The art of using t-SNE for single-cell transcriptomics):
# what is alike lies in islands, and 100,000 points take a third of the time. Small ones would shrink to dots.
POINTS_PER_EXAGGERATION, MOST_EXAGGERATION = 25_000, 4.0
STEPS_PER_REPORT = 10
FEW = 1000  # points up to which a tree (Barnes and Hut) is quicker than a grid (Fourier transforms)
ROWS_PER_SEARCH = 4096
MARGIN = 0.02  # at the edge of the map

GRID = 40  # cells of the map along a side, in which groups are counted
MOST_LANDMARKS = 24
ROOM = (0.17, 0.045)  # width and height of a word on the map: no other one begins nearer


def project(rows: NDArray[np.float16], report: Report, cancel: Event) -> tuple[NDArray[np.float32], str] | None:
    """(n, d) unit rows -> (n, 2) places in 0..1, and the method. None where it was cancelled."""
    reduced = _principal(rows, min(DIMENSIONS, rows.shape[1]))
    if len(rows) < FEWEST or not find_spec("openTSNE"):
        return _fitted(reduced[:, :2]), PCA
    spread = float(reduced[:, 0].std())
    if not spread:
        return _fitted(reduced[:, :2]), PCA
    total = EARLY + EARLY + LATE  # neighbours take about as long as the first part
    neighbours = _neighbours(reduced, lambda done: report(EARLY * done // len(rows), total), cancel)
    if neighbours is None:
        return None
    beginning = reduced[:, :2].astype(np.float64) / spread * 1e-4  # as openTSNE advises
    embedding = _embed(*neighbours, beginning, lambda done: report(EARLY + done, total), cancel)
    return None if embedding is None else (_fitted(embedding), TSNE)


def _principal(rows: NDArray[np.float16], dimensions: int) -> NDArray[np.float32]:
    """(n, dimensions): the rows along the directions in which they differ most, in blocks, since all of them as
    float32 would be large."""
    blocks = [rows[start : start + ROWS_PER_SEARCH] for start in range(0, len(rows), ROWS_PER_SEARCH)]
    mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in blocks], axis=0) / len(rows)
    products = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks:
        wide = block - mean
        products += wide.T @ wide
    _, directions = np.linalg.eigh(products)
    directions = directions[:, ::-1][:, :dimensions]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])  # else the sign is chance
    found: NDArray[np.float32] = np.concatenate([(block - mean) @ directions for block in blocks], dtype=np.float32)
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    return np.ascontiguousarray(found)


def _neighbours(
    rows: NDArray[np.float32], report: Callable[[int], None], cancel: Event
) -> tuple[NDArray[np.int64], NDArray[np.float32], float] | None:
    """(n, k) the nearest other rows, their distances, and the perplexity that they are enough for."""
    import faiss

    perplexity = min(PERPLEXITY, len(rows) / PER_PERPLEXITY)
    k = int(3 * perplexity)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    nearest = np.empty((len(rows), k), np.int64)
    distances = np.empty((len(rows), k), np.float32)
    for start in range(0, len(rows), ROWS_PER_SEARCH):
        if cancel.is_set():
            return None
        report(start)
        part = slice(start, start + ROWS_PER_SEARCH)
        squares, found = index.search(rows[part], k + 1)
        itself = found == np.arange(start, start + len(found))[:, None]
        itself[~itself.any(axis=1), -1] = True  # so many equal ones that it is not among them
        nearest[part] = found[~itself].reshape(-1, k)
        distances[part] = np.sqrt(np.maximum(squares[~itself].reshape(-1, k), 0))
    return nearest, distances, perplexity


def _embed(
    nearest: NDArray[np.int64],
    distances: NDArray[np.float32],
    perplexity: float,
    beginning: NDArray[np.float64],
    report: Callable[[int], None],
    cancel: Event,
) -> NDArray[np.float64] | None:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    known = PrecomputedNeighbors(nearest, distances)
    few = len(beginning) <= FEW
    threads = 1 if few else THREADS  # few are done before two threads have met; on a busy machine that takes minutes
    method = "bh" if few else "fft"
    affinities = PerplexityBasedNN(knn_index=known, perplexity=perplexity, n_jobs=threads)
    embedding = TSNEEmbedding(beginning, affinities, negative_gradient_method=method, n_jobs=threads, random_state=0)
    late = min(max(len(beginning) / POINTS_PER_EXAGGERATION, 1.0), MOST_EXAGGERATION)
    before = 0

    def reported(step: int, _error: float, _embedding: Any) -> bool:
        report(before + step)
        return cancel.is_set()  # True ends it

    for steps, exaggeration, momentum in ((EARLY, EARLY_EXAGGERATION, 0.5), (LATE, late, 0.8)):
        embedding.optimize(
            steps,
            exaggeration=exaggeration,
            momentum=momentum,
            inplace=True,
            callbacks=reported,
            callbacks_every_iters=STEPS_PER_REPORT,
        )
        before += steps
        if cancel.is_set():
            return None
    return np.array(embedding)


def _fitted(places: NDArray[Any]) -> NDArray[np.float32]:
    """Into the square from 0 to 1, in the middle of it, distances as they are to one another."""
    low, high = places.min(axis=0), places.max(axis=0)
    size = float((high - low).max()) or 1.0
    return np.asarray(0.5 + (places - (low + high) / 2) / size * (1 - 2 * MARGIN), np.float32)


# --- landmarks ----------------------------------------------------------------------------------------------------


def landmarks(
    places: NDArray[np.float32], groups: Iterable[tuple[str, NDArray[np.int64]]]
) -> list[tuple[str, float, float]]:
    """groups: name, rows of its places. -> name and place of those that say most about the map: many of the group lie
    there, and many of those that lie there belong to it. None covers another one."""
    if not len(places):
        return []
    cells = np.minimum((places * GRID).astype(np.int64), GRID - 1)
    cells = cells[:, 0] * GRID + cells[:, 1]
    everything = _around(cells)
    candidates = []
    for name, rows in groups:
        mine = _around(cells[rows])
        telling = mine * mine / np.maximum(everything, 1)
        cell = int(telling.argmax())
        candidates.append((float(telling[cell]), name, rows, cell))
    chosen: list[tuple[str, float, float]] = []
    for weight, name, rows, cell in sorted(candidates, key=lambda one: (-one[0], one[1])):
        column, row = divmod(cell, GRID)
        near = (np.abs(cells[rows] // GRID - column) <= 1) & (np.abs(cells[rows] % GRID - row) <= 1)
        x, y = (float(value) for value in places[rows[near]].mean(axis=0))
        free = all(abs(x - other[1]) >= ROOM[0] or abs(y - other[2]) >= ROOM[1] for other in chosen)
        if weight > 0 and free:
            chosen.append((name, x, y))
        if len(chosen) == MOST_LANDMARKS:
            break
    return chosen


def _around(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many lie in each cell or beside it, (GRID * GRID,)."""
    counts = np.pad(np.bincount(cells, minlength=GRID * GRID).reshape(GRID, GRID), 1)
    several = sum(counts[i : i + GRID, j : j + GRID] for i in range(3) for j in range(3))
    return np.asarray(several, np.int64).reshape(-1)
