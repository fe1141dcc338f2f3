"""What an engine keeps of one space between searches: opened generations, the newest rows, the calibration.

In: the catalog. Out: `Rows`, what is searched at one moment: a generation, and beside it the rows above its highest id.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch.catalog import read
from mmsearch.catalog.read import SpaceRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import DamagedError
from mmsearch.relevance import Calibration, calibration_for
from mmsearch.vectors import generations
from mmsearch.vectors.generations import Generation


@dataclass(frozen=True, slots=True)
class Rows:
    """The vectors of one kind, at one moment."""

    generation: Generation | None
    ids: NDArray[np.int64]
    rows: NDArray[np.float32]

    @property
    def exact(self) -> bool:
        return self.generation is None or self.generation.exact

    def __len__(self) -> int:
        return len(self.ids) + (self.generation.rows if self.generation is not None else 0)

    def best(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best approximate scores, descending, and their vector ids; fewer where there are fewer."""
        ids, scores = self.ids, self.rows @ vector
        if allowed is not None and len(ids):
            kept = np.isin(ids, allowed)
            ids, scores = ids[kept], scores[kept]
        if len(scores) > k:
            top = np.argpartition(scores, -k)[-k:]
            ids, scores = ids[top], scores[top]
        if self.generation is not None and self.generation.rows:
            below = allowed if allowed is None else allowed[allowed <= self.generation.highest_id]
            more_scores, more_ids = self.generation.index.search(vector[None], k, below)
            ids, scores = np.concatenate([ids, more_ids[0]]), np.concatenate([scores, more_scores[0]])
        return _top(scores, ids, k)


@dataclass(frozen=True, slots=True)
class JointRows:
    """Images together with their captions, and beside them, by themselves, the images that have none. Only `allowed`
    tells which those are."""

    joint: Rows
    images: Rows

    def __len__(self) -> int:
        return len(self.images)

    @property
    def exact(self) -> bool:
        return self.joint.exact and self.images.exact

    def best(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `Rows.best`."""
        found = [rows.best(vector, k, allowed) for rows in (self.joint, self.images)]
        return _top(np.concatenate([found[0][0], found[1][0]]), np.concatenate([found[0][1], found[1][1]]), k)


def _top(scores: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


class View:
    """What an engine keeps of one space between searches.

    A generation is opened, and checked in full, on a thread, while the encoder loads. A damaged one is passed over,
    the catalog's rows are scanned instead, and the first result after that says so.
    """

    def __init__(self, folder: Path, space: SpaceRow) -> None:
        self.space = space
        self._folder = folder / "index" / str(space.id)
        self._lock = Lock()
        self._opener = ThreadPoolExecutor(1, "mmsearch-open")
        self._opening: dict[str, tuple[str | None, Future[Generation | None]]] = {}
        self._rows: dict[str, Rows] = {}
        self._notice: str | None = None
        self._calibrated: tuple[tuple[str | None, bool], Calibration | None] | None = None

    def close(self) -> None:
        self._opener.shutdown(cancel_futures=True)

    def preload(self, space: SpaceRow, kind: str) -> None:
        """Begin to open the generation of a kind, if it is not the one that is open."""
        with self._lock:
            name = space.generation(kind)
            if kind not in self._opening or self._opening[kind][0] != name:
                self._opening[kind] = name, self._opener.submit(self._open, name)
                self._rows.pop(kind, None)

    def calibration(self, connection: Connection, encoder: Encoder | None) -> Calibration | None:
        """How scores of this space become probabilities: read again when an index run has written it anew."""
        known = read.calibration(connection, self.space.id), encoder is not None
        with self._lock:
            if self._calibrated is None or self._calibrated[0] != known:
                stored = None if known[0] is None else json.loads(known[0])
                self._calibrated = known, calibration_for(encoder, stored)
            return self._calibrated[1]

    def rows(self, connection: Connection, kind: str) -> Rows:
        """What to search now: follows new generations and new rows of the catalog."""
        space = next(one for one in read.spaces(connection) if one.id == self.space.id)
        self.preload(space, kind)
        with self._lock:
            known = self._rows.get(kind)
            if known is None:
                generation = self._opening[kind][1].result()
                known = Rows(generation, np.empty(0, np.int64), np.empty((0, space.dimension), np.float32))
            above = known.generation.highest_id if known.generation else 0
            newest = int(known.ids[-1]) if len(known.ids) else above
            new = list(read.rows_above(connection, space.id, kind, newest, space.dimension))
            if new:
                ids = np.concatenate([known.ids, *(ids for ids, _ in new)])
                rows = np.concatenate([known.rows, *(rows.astype(np.float32) for _, rows in new)])
                kept = np.isin(ids, read.ids_above(connection, space.id, kind, above))  # others were deleted since
                known = Rows(known.generation, ids[kept], rows[kept])
            self._rows[kind] = known
            return known

    def joint_rows(self, connection: Connection) -> JointRows:
        """As `rows`, for images together with their captions."""
        return JointRows(self.rows(connection, "joint"), self.rows(connection, "images"))

    def take_notice(self) -> str | None:
        """What the person should know, once."""
        with self._lock:
            notice, self._notice = self._notice, None
            return notice

    def _open(self, name: str | None) -> Generation | None:
        """On the opener's thread."""
        if name is None:
            return None
        path = self._folder / name
        try:
            generation = generations.open_generation(
                path, dimension=self.space.dimension, fingerprint=self.space.fingerprint
            )
            generations.check_generation(path)
        except DamagedError as error:
            self._notice = f"{error} Until then every row of the catalog is scanned."
            return None
        return generation
