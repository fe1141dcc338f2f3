"""The search, top to bottom: resolve, encode, search, hydrate.

In: a query. Out: hits that are exact, in an order that depends on nothing but the vectors: score, then sha256.

    resolve   which space is asked, and the generation and the newest rows that serve it
    encode    each term with its tower; texts are averaged, pictures are averaged, both weigh the same
    search    the generation through FAISS, the newest rows beside it by a plain product
    hydrate   what the vectors belong to; deleted and missing images drop out here, and what is left is scored again
              from the catalog's own rows, so that neither the index nor the way it adds up decides the order

Nothing is returned that could be wrong at the edge: when a row that was not fetched could still belong among the
first k (its approximate score is too close, or hits dropped out), more rows are fetched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import Found, SpaceRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import DamagedError, PictureError, UsageError
from mmsearch.query import Query, Term
from mmsearch.settings import Limits
from mmsearch.types import Hit, Kind, SearchResult
from mmsearch.vectors import generations
from mmsearch.vectors.generations import Generation

if TYPE_CHECKING:
    from PIL import Image

# How far an index's score may lie from the exact one, which divides by the length of the row: rounding to float16
# changes each number, and so the length, by at most 2^-11 of it; adding up in float32 changes less.
SCORE_TOLERANCE = 6e-4


def search(catalog: Catalog, view: View, encoder: Encoder | None, query: Query, limits: Limits) -> SearchResult:
    """Answer a query in the space of `view`. encoder: needed where terms are texts or pictures."""
    vector = query_vector(query.terms, encoder, view.space.dimension, limits)
    with catalog.reading() as connection:
        source = view.rows(connection, query.find)
        found = _best(connection, source, view.space.id, query.find, vector, query.k)
        paths = read.present_files(connection, [one.image for _, one in found])
    hits = []
    for rank, (score, one) in enumerate(found, 1):
        files = tuple(Path(os.fsdecode(os.path.join(*place))) for place in paths[one.image] if place[0])
        files = tuple(sorted(files, key=lambda path: not path.exists()))  # a disk may be away, a file just deleted
        keys = [os.fsdecode(relative) for root, relative in paths[one.image] if not root]
        hits.append(
            Hit(
                rank=rank,
                id=one.image,
                sha256=one.sha256.hex(),
                path=files[0] if files else None,
                paths=files,
                key=keys[0] if keys else None,
                caption=one.caption,
                score=score,
            )
        )
    return SearchResult(view.space.encoder, source.exact, tuple(hits), view.take_notice())


# --- encode -----------------------------------------------------------------------------------------------------


def query_vector(terms: Sequence[Term], encoder: Encoder | None, dimension: int, limits: Limits) -> NDArray[np.float32]:
    """Terms -> (dimension,) float32, unit length."""
    texts = [term.text for term in terms if term.text is not None]
    pictures = [term.picture for term in terms if term.picture is not None]
    given = [np.asarray(term.vector, np.float64) for term in terms if term.vector is not None]
    for vector in given:
        if vector.shape != (dimension,) or not np.isfinite(vector).all():
            raise UsageError(
                f"A query vector has the shape {vector.shape}; this space needs {dimension} finite numbers."
            )
    parts = [np.stack([_unit(vector) for vector in given])] if given else []
    if texts or pictures:
        assert encoder is not None
        if texts:
            parts.append(encoder.encode_texts(texts))
        if pictures:
            prepared = [encoder.prepare(open_picture(one, encoder.image_size, limits)) for one in pictures]
            parts.append(encoder.encode_images(prepared))
    # Pictures lie closer together than texts do: each kind is normalised before they are added.
    return _unit(np.sum([_unit(part.mean(0)) for part in parts], axis=0))


def open_picture(
    picture: str | Path | bytes | Image.Image | NDArray[np.uint8], target: int, limits: Limits
) -> Image.Image:
    """Whatever a term may name as a picture -> RGB, upright. UsageError names the picture and the reason."""
    from PIL import Image

    from mmsearch import files
    from mmsearch.decode import decode, to_rgb

    name = "the picture" if not isinstance(picture, str | Path) else str(picture)
    try:
        if isinstance(picture, str | Path):
            picture = files.read(Path(picture).expanduser(), limits.max_megabytes)[0]
        if isinstance(picture, bytes):
            return decode(picture, target=target, limits=limits).picture
        if not isinstance(picture, Image.Image):
            picture = _from_array(picture)
        return to_rgb(picture, target=target)
    except PictureError as error:
        raise UsageError(f"Cannot use {name}: {error}.") from error


def _from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            "an array must be uint8 of shape (height, width), (height, width, 3) or (height, width, 4), "
            f"not {array.dtype} {array.shape}"
        )
    if not array.size:
        raise PictureError("the array is empty")
    return Image.fromarray(array)


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = np.asarray(vector, np.float64)
    length = np.linalg.norm(wide)
    if length == 0:
        raise UsageError("The query vector is zero; it points nowhere.")
    return np.asarray(wide / length, np.float32)


# --- search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """What is searched, at one moment: a generation, and beside it the rows above its highest id."""

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
        if allowed is not None:
            kept = np.isin(ids, allowed)
            ids, scores = ids[kept], scores[kept]
        if len(scores) > k:
            top = np.argpartition(scores, -k)[-k:]
            ids, scores = ids[top], scores[top]
        if self.generation is not None and self.generation.rows:
            below = allowed if allowed is None else allowed[allowed <= self.generation.highest_id]
            more_scores, more_ids = self.generation.index.search(vector[None], k, below)
            ids, scores = np.concatenate([ids, more_ids[0]]), np.concatenate([scores, more_scores[0]])
        order = np.lexsort((ids, -scores))[:k]
        return scores[order], ids[order]


def _best(
    connection: Connection, source: Rows, space_id: int, kind: Kind, vector: NDArray[np.float32], k: int
) -> list[tuple[float, Found]]:
    """The k best visible rows with their exact scores; min(k, visible) of them."""
    fetch, allowed = 2 * k + 16, None
    while True:
        rough, ids = source.best(vector, fetch, allowed)
        found = read.visible(connection, kind, ids.tolist())
        scored = sorted(
            zip(_exact_scores(vector, found), found, strict=True),
            key=lambda pair: (-pair[0], pair[1].sha256, pair[1].caption or ""),
        )
        everything = len(ids) < fetch
        if everything or (len(scored) >= k and scored[k - 1][0] > rough[-1] + SCORE_TOLERANCE):
            return scored[:k]
        if allowed is None and len(found) < len(ids):
            allowed = read.visible_ids(connection, space_id, kind)  # something is hidden: decide first, then search
        else:
            fetch *= 4  # the scores at the edge are too close to tell


def _exact_scores(vector: NDArray[np.float32], found: Sequence[Found]) -> list[float]:
    """Cosines in float64, rounded to float32: the same whatever the company."""
    wide = vector.astype(np.float64)
    scores = []
    for one in found:
        row = one.row.astype(np.float64)
        scores.append(float(np.float32(row @ wide / np.linalg.norm(row))))
    return scores


# --- resolve ----------------------------------------------------------------------------------------------------


class View:
    """What an engine keeps of one space between searches: opened generations and the newest rows, per kind.

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

    def close(self) -> None:
        self._opener.shutdown(cancel_futures=True)

    def preload(self, space: SpaceRow, kind: str) -> None:
        """Begin to open the generation of a kind, if it is not the one that is open."""
        with self._lock:
            name = space.generation(kind)
            if kind not in self._opening or self._opening[kind][0] != name:
                self._opening[kind] = name, self._opener.submit(self._open, name)
                self._rows.pop(kind, None)

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
