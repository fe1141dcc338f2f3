"""Backgrounds: what the scores of a space look like where nothing was asked for (relevance.py says what for).

In: vectors of pictures, and of the neutral queries (labels.txt). Out: a `Background`; for spaces whose encoder
brings no calibration along, kept in the catalog as JSON. The last step of an index run but refreshing; cheap: a sample
of pictures, chosen by their hashes, so that it depends on nothing but what the collection holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmsearch.captioning import encode_texts
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.encoders.protocol import Encoder
from mmsearch.labels import read_labels
from mmsearch.relevance import FORMAT, Background, own_calibration, to_json
from mmsearch.types import Progress

SAMPLE = 2000  # pictures that make the background of a collection
LEAST = 50  # with fewer pictures nobody can tell the usual from the unusual
CHANGED = 0.1  # share by which the number of pictures must have changed before a collection is looked at anew


def neutral_queries() -> tuple[str, ...]:
    """The bank: everyday things, scenes and activities of all kinds, the list that `tag` looks for."""
    return tuple(label.name for label in read_labels())


def background_of(
    images: NDArray[np.floating], bank: NDArray[np.float32], parts: tuple[int, ...] | None = None
) -> Background | None:
    """images (m, d), bank (n, d), unit length; no rows of the bank where texts are not known. None where all pictures,
    or all texts, score the same: such a space can tell nothing."""
    pictures = np.asarray(images, np.float64)
    texts = np.asarray(bank, np.float64)
    spreads = {"i2i": _spread(pictures, pictures)}
    if len(bank):
        spreads |= {"t2i": _spread(texts, pictures), "i2t": _spread(pictures, texts), "t2t": _spread(texts, texts)}
    if min(spreads.values()) < 1e-6:
        return None
    mean = texts.mean(axis=0) if len(bank) else np.zeros(pictures.shape[1])
    return Background(pictures.mean(axis=0), mean, bank, parts or (pictures.shape[1],), spreads)


def _spread(queries: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Mean standard deviation of the scores of one query over what can be found."""
    middle = found - found.mean(axis=0)
    second_moment = middle.T @ middle / len(found)  # (d, d): q' S q is the variance of the scores of q
    variances = ((queries @ second_moment) * queries).sum(axis=1)
    return float(np.sqrt(np.maximum(variances, 0)).mean())


def calibrate(catalog: Catalog, encoder: Encoder | None, on_progress: Callable[[Progress], None]) -> None:
    """Bring the calibrations of a collection up to date: of the encoder's space, unless the encoder brings its own, and
    of spaces whose vectors an application gives. Only for who holds the index lock."""
    with catalog.reading() as connection:
        spaces = read.spaces(connection)
    for space in spaces:
        own = encoder is not None and encoder.space.fingerprint == space.fingerprint
        if not own and not space.fingerprint.startswith(read.GIVEN):
            continue
        if own and own_calibration(encoder) is not None:
            continue
        with catalog.reading() as connection:
            before = read.calibration(connection, space.id)
            count = read.count_vectors(connection, space.id, "images")
            if before is not None and _still_holds(before, count):
                continue
            rows = read.sample_of_images(connection, space.id, SAMPLE, space.dimension)
        on_progress(Progress("calibrating"))
        made: dict[str, object] = {"format": FORMAT, "images": count}
        if len(rows) >= LEAST:
            texts = encode_texts(encoder, neutral_queries()) if own and encoder is not None else rows[:0]
            background = background_of(rows, np.asarray(texts, np.float32))
            made |= {} if background is None else to_json(background)
        with catalog.writing() as connection:
            write.set_calibration(connection, space.id, made)


def _still_holds(before: str, count: int) -> bool:
    stored = json.loads(before)
    return bool(stored.get("format") == FORMAT and abs(count - stored["images"]) <= CHANGED * stored["images"])
