"""The held-out side as evaluation needs it: every picture and every text once, and which belong together.

In: held-out pictures, where their pixels or rows and their tokens or rows come from. Out: a `Captioned` or `Labelled`
set for `judging.judge`, and tensors in its order, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.errors import UsageError
from mmsearch.testsets import Captioned, Labelled
from mmsearch.training.ahead import ahead
from mmsearch.training.picture import Picture
from mmsearch.training.pixels import Pixels
from mmsearch.training.rows import Rows
from mmsearch.training.tokens import Tokens


def asked(about: str, pictures: Sequence[Picture]) -> Captioned | Labelled:
    """Captions, where pictures have some; else bare labels, as `mmsearch eval` asks for them. `pictures` are the
    `Picture`s. Raises UsageError where there are fewer than two labels."""
    owners = [row for row, picture in enumerate(pictures) for _ in picture.captions]
    if owners:
        texts = tuple(text for picture in pictures for text in picture.captions)
        return Captioned(about, tuple(pictures), texts, np.array(owners, np.int64))
    labels = sorted({label for picture in pictures for label in picture.labels})
    if len(labels) < 2:
        raise UsageError(f"{about[:1].upper()}{about[1:]} have fewer than two labels; it takes two to measure.")
    right = np.array([[label in picture.labels for picture in pictures] for label in labels], bool)
    return Labelled(about, tuple(pictures), tuple(labels), right)


class HeldOut:
    """test: what is asked and what is right. images: pixels of strength `none`, or rows, of its pictures. texts: tokens
    as needed, or rows of `test.texts`."""

    def __init__(self, test: Captioned | Labelled, images: Pixels | Rows, texts: Tokens | Rows) -> None:
        self.test = test
        self._images, self._texts = images, texts

    def images(self, size: int) -> Iterator[Tensor]:
        """(m, side, side, 3) uint8, or (m, w) float32; at most `size` pictures at once. Raises UsageError for one that
        is gone: figures of fewer pictures could not be compared."""
        for rows in _parts(len(self.test.pictures), size):
            if isinstance(self._images, Rows):
                yield torch.from_numpy(self._images.take(rows))
            else:
                yield torch.from_numpy(np.stack(list(ahead(self._pixels, rows.tolist(), size))))

    def texts(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(ids, mask), or (rows, None); at most `size` texts at once."""
        for rows in _parts(len(self.test.texts), size):
            if isinstance(self._texts, Rows):
                yield torch.from_numpy(self._texts.take(rows)), None
            else:
                ids, mask = self._texts([self.test.texts[row] for row in rows])
                yield torch.from_numpy(ids), torch.from_numpy(mask)

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        images = self._images
        assert isinstance(images, Pixels)
        found, views = images.views(row, [[0]])
        if found != row:
            place = self.test.pictures[row].place
            raise UsageError(f"{place} cannot be read any more; begin again, and it will be left out.")
        return views[0]


def _parts(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
