"""A picture in words: the captions of the collection that lie nearest to it, and the labels that fit it.

In: a picture, or an image of the collection. Out: a `Description`. Without captions, or without a collection at all,
there are labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import tags
from mmsearch.catalog.catalog import Catalog
from mmsearch.composing import compose
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import UsageError
from mmsearch.labels import Label, LabelScore, label_bank
from mmsearch.query import Query, Term
from mmsearch.relevance import calibration_for
from mmsearch.searching import search
from mmsearch.settings import Limits
from mmsearch.types import CalibrationKind, Hit
from mmsearch.views import View


@dataclass(frozen=True, slots=True)
class Description:
    """captions: of the collection, the nearest first, as hits with their caption, score and probability. labels: the
    most probable first. calibration: where the labels' probabilities come from; None where there are none."""

    space: str
    captions: tuple[Hit, ...]
    labels: tuple[LabelScore, ...]
    calibration: CalibrationKind | None


def describe(
    catalog: Catalog,
    view: View | None,
    encoder: Encoder,
    term: Term,
    labels: Sequence[Label],
    k: int,
    limits: Limits,
) -> Description:
    """See `Engine.describe`. view: None where there is no collection, or nothing in it. term: a picture or an image."""
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1.")
    if view is None:
        calibration = calibration_for(encoder, None)
    else:
        with catalog.reading() as connection:
            calibration = view.calibration(connection, encoder)
    row = _row(catalog, view, encoder, term, limits)
    hits: tuple[Hit, ...] = ()
    if view is not None:
        view.preload(view.space, "captions")
        hits = search(catalog, view, encoder, Query((Term(vector=row),), find="captions", k=k), limits).hits
    bank = label_bank(encoder, labels, calibration)
    known = calibration.kind if calibration is not None and bank.slopes is not None else None
    return Description(encoder.space.name, hits, bank.best(row, k), known)


def _row(catalog: Catalog, view: View | None, encoder: Encoder, term: Term, limits: Limits) -> NDArray[np.float32]:
    """(dimension,) float32, unit length: the vector of the picture."""
    if term.image is None:
        whole = Query((term,))
        return compose(
            whole, encoder.space.dimension, encoder=encoder, stored={}, files=_no_file, calibration=None, limits=limits
        ).vector
    rows = np.empty((0, 0), np.float32)
    if view is not None:
        with catalog.reading() as connection:
            _, rows = tags.vectors_of(connection, view.space.id, view.space.dimension, [term.image])
    if not len(rows):
        raise UsageError(
            f"There is no image #{term.image} with a vector of {encoder.space.name}; `mmsearch query --json` shows ids."
        )
    row: NDArray[np.float32] = rows[0]
    return row


def _no_file(image: int) -> Path:
    raise UsageError(f"A part of the image #{image} cannot be described; name its file.")
