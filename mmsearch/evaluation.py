"""How well an encoder finds the right picture on one's own data.

In: a folder that someone prepared (testsets.py says which kinds there are) and an encoder, or a collection and one of
its spaces; optionally a second encoder or space, the rival, to measure on the same queries. Out: figures with
intervals (judging.py; metrics.py says how ties count), for a collection also how complete its index is.

    folder       every picture of the set (or of a split) is decoded and encoded. One that is not there or cannot be
                 decoded is left out with its texts, and reported: the figures are then those of a smaller, easier set
    collection   stored vectors are used, and only texts without one are encoded; every picture of the collection takes
                 part, those without a caption as what captions may be confused with
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import decode, files, judging, testsets
from mmsearch.catalog import samples
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import SpaceRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import PictureError, UsageError
from mmsearch.judging import Difference, Figures, LabelFigures, Measure, Values
from mmsearch.settings import Limits
from mmsearch.testsets import Captioned, Labelled, Source
from mmsearch.types import FailedFile, Progress, SearchResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

Report = Callable[[Progress], None]

_TEXTS_AT_ONCE = 256  # only so that progress moves and the texts of a large set are not tokenised at once
INDEX_K = 10
_INDEX_QUERIES = 200
_TIE = 1e-6  # scores this close are equal: a place at the edge of the first k may go to either


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """How many of the k nearest images a search finds, against a scan of all vectors: 0 to 1, the mean of `queries`
    texts. exact: what the search says of itself."""

    k: int
    recall: float
    queries: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was compared and how it went. left_out: named images that could not be used, with the reason.

    captions: how many; 0 for a set of labels, and then `text_to_image` and `image_to_text` are None. about: the set,
    in one line. measures: all figures with their intervals. labels: each label by itself. ranks: by direction, the
    rank of the right one for each query. index: for collections.
    rival: another encoder on the same set. differences: what the rival has over this one.
    """

    space: str
    images: int
    captions: int
    text_to_image: Figures | None
    image_to_text: Figures | None
    left_out: tuple[FailedFile, ...]
    about: str = ""
    measures: tuple[Measure, ...] = ()
    labels: tuple[LabelFigures, ...] = ()
    ranks: dict[str, NDArray[np.int64]] = field(default_factory=dict, compare=False)
    index: IndexCheck | None = None
    rival: Evaluation | None = None
    differences: tuple[Difference, ...] = ()


# --- a folder -----------------------------------------------------------------------------------------------------


def evaluate(
    folder: Path,
    encoder: Encoder,
    *,
    rival: Encoder | None = None,
    split: Path | None = None,
    limits: Limits | None = None,
    on_progress: Report | None = None,
) -> Evaluation:
    """Encode the pictures and texts of `folder`, rank everything against everything.

    split: a text file with one image name a line, the only ones to use.
    UsageError: the folder is no test set, or nothing in it can be used.
    """
    report = on_progress or _silent
    report(Progress("scanning"))
    test, left_out = testsets.from_folder(folder, split)
    kept = list(range(len(test.pictures)))
    encoders = [encoder] if rival is None else [encoder, rival]
    rows: list[dict[int, NDArray[np.float32]]] = []
    for one in encoders:
        encoded, failed = _encode_pictures(test.pictures, kept, one, limits or Limits(), report)
        rows.append(encoded)
        kept = list(encoded)
        left_out += failed
    if not kept:
        first = f", the first because {left_out[0].error}" if left_out else ""
        raise UsageError(f"None of the images that {test.about} name can be used{first}.")

    test = test.only(kept)
    judged = []
    for one, encoded in zip(encoders, rows, strict=True):
        texts = _encode_texts(test.texts, one, report)
        judged.append(judging.judge(test, np.stack([encoded[row] for row in kept]), texts))
    return _told(test, [one.space.name for one in encoders], judged, [None] * len(encoders), tuple(left_out))


def _silent(_progress: Progress) -> None:
    return


def _encode_pictures(
    paths: Sequence[Path], wanted: Sequence[int], encoder: Encoder, limits: Limits, report: Report
) -> tuple[dict[int, NDArray[np.float32]], list[FailedFile]]:
    """-> rows by position in `paths`, of those wanted that can be decoded; and the others."""
    rows: dict[int, NDArray[np.float32]] = {}
    failed: list[FailedFile] = []
    prepared = zip(wanted, _prepared([paths[row] for row in wanted], encoder, limits), strict=True)
    while batch := list(islice(prepared, encoder.batch_size)):
        failed += [FailedFile(paths[row], str(got)) for row, got in batch if isinstance(got, PictureError)]
        good = [(row, got) for row, got in batch if not isinstance(got, PictureError)]
        rows.update(zip([row for row, _ in good], encoder.encode_images([array for _, array in good]), strict=True))
        report(Progress("encoding", len(rows), len(wanted)))
    return rows, failed


def _encode_texts(texts: Sequence[str], encoder: Encoder, report: Report) -> NDArray[np.float32]:
    rows = [np.empty((0, encoder.space.dimension), np.float32)]
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        rows.append(encoder.encode_texts(texts[start : start + _TEXTS_AT_ONCE]))
        report(Progress("captions", sum(map(len, rows)), len(texts)))
    return np.concatenate(rows)


def _told(
    test: Captioned | Labelled,
    spaces: Sequence[str],
    judged: Sequence[tuple[Values, ...]],
    checks: Sequence[IndexCheck | None],
    left_out: tuple[FailedFile, ...],
) -> Evaluation:
    """One encoder's figures, with the second one's beside them where there are two."""
    made = []
    for space, values, check in zip(spaces, judged, checks, strict=True):
        of_ranks = {one.direction: judging.figures(one) for one in values if one.ranks is not None}
        made.append(
            Evaluation(
                space=space,
                images=len(test.pictures),
                captions=len(test.texts) if isinstance(test, Captioned) else 0,
                text_to_image=of_ranks.get("t2i"),
                image_to_text=of_ranks.get("i2t"),
                left_out=left_out,
                about=test.about,
                measures=judging.measures(values),
                labels=judging.label_figures(test, values) if isinstance(test, Labelled) else (),
                ranks={one.direction: one.ranks for one in values if one.ranks is not None},
                index=check,
            )
        )
    if len(made) == 1:
        return made[0]
    return replace(made[0], rival=made[1], differences=judging.differences(*judged))


def _prepared(paths: Sequence[Path], encoder: Encoder, limits: Limits) -> Iterator[NDArray[Any] | PictureError]:
    """Prepared pictures in order, decoded on threads two batches ahead; a picture that fails comes as its error."""

    def prepare(path: Path) -> NDArray[Any] | PictureError:
        try:
            data = files.read(path, limits.max_megabytes)[0]
            return encoder.prepare(decode.decode(data, target=encoder.image_size, limits=limits).picture)
        except PictureError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count(), "decode") as pool:
        waiting: deque[Future[NDArray[Any] | PictureError]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(prepare, path))
                if len(waiting) >= 2 * encoder.batch_size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# --- a collection -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """A space of a collection, its encoder (asked for only where texts have no stored vector), and its search: a
    vector -> the best INDEX_K hits."""

    space: SpaceRow
    encoder: Callable[[], Encoder]
    search: Callable[[NDArray[np.float32]], SearchResult]


def evaluate_collection(
    catalog: Catalog,
    side: Side,
    rival: Side | None = None,
    *,
    source: Source | None = None,
    on_progress: Report | None = None,
) -> Evaluation:
    """Measure a space, or two, on what the collection says about its own pictures.

    source: `captions` or `folders`; None takes captions where there are enough of them. With two spaces, pictures
    that one of them lacks take no part. UsageError: there is too little to build a test set of.
    """
    report = on_progress or _silent
    report(Progress("scanning"))
    sides = [side] if rival is None else [side, rival]
    with catalog.reading() as connection:
        known = [samples.encoded_images(connection, one.space.id) for one in sides]
        in_all = set(known[0]).intersection(*known[1:])
        test = testsets.from_collection(connection, [image for image in known[0] if image in in_all], source)
        numbers = test.captions if isinstance(test, Captioned) else ()
        stored = [
            [
                samples.rows_of(connection, one.space.id, kind, owners, one.space.dimension)
                for kind, owners in (("images", test.pictures), ("captions", numbers))
            ]
            for one in sides
        ]
    judged, checks = [], []
    for one, (images, captions) in zip(sides, stored, strict=True):
        texts = _texts_of(one, test, *captions, report)
        report(Progress("comparing"))
        judged.append(judging.judge(test, images[1], texts))
        checks.append(check_index(catalog, one, texts, report))
    return _told(test, [one.space.encoder for one in sides], judged, checks, ())


def _texts_of(
    side: Side, test: Captioned | Labelled, places: Sequence[int], stored: NDArray[np.float32], report: Report
) -> NDArray[np.float32]:
    """(t, d): stored rows (m, d) at their places among the texts, the others encoded."""
    rows = np.empty((len(test.texts), side.space.dimension), np.float32)
    rows[list(places)] = stored
    there = set(places)
    missing = [number for number in range(len(test.texts)) if number not in there]
    if missing:
        rows[missing] = _encode_texts([test.texts[number] for number in missing], side.encoder(), report)
    return rows


def check_index(catalog: Catalog, side: Side, texts: NDArray[np.float32], on_progress: Report) -> IndexCheck:
    """Search for some texts (t, d), at least one, as queries do, and compare with a plain scan of all vectors."""
    some = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _INDEX_QUERIES)).astype(np.int64))
    queries = texts[some].astype(np.float64)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = np.empty((len(queries), 0))
    images = np.empty((len(queries), 0), np.int64)
    with catalog.reading() as connection:
        for ids, rows in samples.image_rows(connection, side.space.id, side.space.dimension):
            scores = np.concatenate([scores, queries @ rows.astype(np.float64).T], axis=1)
            images = np.concatenate([images, np.broadcast_to(ids, (len(queries), len(ids)))], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :INDEX_K]
            scores, images = np.take_along_axis(scores, best, axis=1), np.take_along_axis(images, best, axis=1)
    found, exact = 0.0, True
    for number, query in enumerate(queries):
        result = side.search(np.asarray(query, np.float32))
        right, edge = set(images[number].tolist()), scores[number, -1]
        found += sum(hit.id in right or abs(hit.score - edge) <= _TIE for hit in result) / len(right)
        exact = exact and result.exact
        on_progress(Progress("comparing", number + 1, len(queries)))
    return IndexCheck(INDEX_K, found / len(queries), len(queries), exact)
