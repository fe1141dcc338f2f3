"""Pictures as the squares that a tower reads, random views of them, and a small set kept decoded in memory.

In: pictures. Out: (side, side, 3) uint8. Views are made of a square a quarter larger than the tower's, so that crops
lose little; the square is the same whether it was kept or decoded again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.encoders.preprocess import squeeze
from mmsearch.errors import PictureError, UsageError
from mmsearch.training.augment import Strength, view
from mmsearch.training.picture import Picture

ROOM = 1.25  # side of the square that views are made of, relative to the tower's
_MOST_GONE = 10  # pictures in a row that cannot be read: then more is wrong than a file


class Pixels:
    """side: of the tower, in pixels. keep_megabytes: a set that fits is decoded only once (6,000 pictures at 96 pixels
    have 260 MB with room for views). notices: what could not be read any more. Safe on threads."""

    def __init__(
        self, pictures: Sequence[Picture], side: int, strength: Strength = "none", *, keep_megabytes: float = 1000.0
    ) -> None:
        self.side, self.strength = side, strength
        self.notices: list[str] = []
        self._pictures = pictures
        self._square = side if strength == "none" else round(side * ROOM)
        fits = len(pictures) * self._square**2 * 3 <= keep_megabytes * 1e6
        # The system gives memory to the rows when they are written.
        self._kept = np.empty((len(pictures), self._square, self._square, 3), np.uint8) if fits else None
        self._there = np.zeros(len(pictures), bool)

    def __len__(self) -> int:
        return len(self._pictures)

    def views(self, row: int, seeds: Sequence[Sequence[int]]) -> tuple[int, list[NDArray[np.uint8]]]:
        """-> the row, and a view of it for each seed. One that cannot be read any more is replaced by the next.
        Raises UsageError where many in a row are gone."""
        for number in range(min(_MOST_GONE, len(self))):
            instead = (row + number) % len(self)
            try:
                square = Image.fromarray(self._read(instead))
            except PictureError as error:
                notice = f"{self._pictures[instead].place} cannot be read any more ({error}); another takes its place."
                if notice not in self.notices:
                    self.notices.append(notice)
                continue
            chances = map(np.random.default_rng, seeds)
            return instead, [view(square, self.side, self.strength, chance) for chance in chances]
        raise UsageError(
            f"{self._pictures[row].place} and those after it cannot be read any more; see that their disk is there, "
            "and begin again."
        )

    def _read(self, row: int) -> NDArray[np.uint8]:
        """(square, square, 3). Raises PictureError."""
        if self._kept is not None and self._there[row]:
            kept: NDArray[np.uint8] = self._kept[row]
            return kept
        made = squeeze(self._pictures[row].open(self._square), self._square)
        if self._kept is not None:
            self._kept[row] = made
            self._there[row] = True  # after the pixels: another thread may look
        return made
