"""Relevance feedback: answers that were good or bad move the query (Rocchio 1971, in Salton's SMART system).

    moved = query + MORE * mean(good answers) - LESS * mean(bad answers)

Bad answers weigh less than good ones: they lie in many directions, good ones in few.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MORE, LESS = 0.75, 0.25


def rocchio(good: NDArray[np.floating], bad: NDArray[np.floating]) -> NDArray[np.float64]:
    """good (g, d), bad (b, d), unit rows -> (g + b, d): what each adds to the query, good ones first."""
    parts = [sign * rows / max(1, len(rows)) for sign, rows in ((MORE, good), (-LESS, bad))]
    return np.concatenate(parts).astype(np.float64)
