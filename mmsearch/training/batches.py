"""Batches by step: what a learner gets, as a pure function of the seed and the step.

In: sets of pictures with their weights; where pictures come from (`Pixels`, or cached `Rows` of one or more views) and
texts (`Tokens`, or cached `Rows`). Out: a `Batch` (batch.py) for each step, prepared ahead on a thread while the last
one is learned from; decoding runs on threads of its own.

Of each picture one text is drawn, of cached rows one view. Where no texts are read, pictures need none: their groups
say -1, that they belong with no others. Several processes draw the same batch, and each makes
only its own part of it, so that together they see what one would.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsearch.errors import UsageError
from mmsearch.training.batch import Batch
from mmsearch.training.order import Order
from mmsearch.training.picture import Picture, number, plain, spoken
from mmsearch.training.pixels import Pixels
from mmsearch.training.rows import Rows
from mmsearch.training.tokens import Tokens

_AHEAD = 2  # steps that are prepared beforehand
_STEP, _VIEW = 2, 3  # keep draws of steps and of views apart, and from those of epochs (order.py)


class Batches:
    """Use it in a `with` block, or close it: it has threads.

    sets: (weight, pictures) each; all pictures, in this order, are the rows that `images` and `teacher_images` have.
    texts: rows of `spoken(pictures)`, or tokens made as they are needed; so are teacher_texts. second: another view
    of each picture, drawn by itself, where there are pixels. size: rows of a step over all processes; rank, world:
    which of how many parts is made here. per_epoch: steps. notices: lines worth showing.
    """

    def __init__(
        self,
        sets: Sequence[tuple[float, Sequence[Picture]]],
        *,
        size: int,
        seed: int,
        images: Pixels | Sequence[Rows] | None = None,
        texts: Tokens | Rows | None = None,
        second: bool = False,
        teacher_images: Rows | None = None,
        teacher_texts: Rows | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        pictures = [picture for _, one in sets for picture in one]
        self._order = Order(
            [len(one) for _, one in sets], [weight for weight, _ in sets], size=size, seed=seed, world=world
        )
        table = {text: row for row, text in enumerate(spoken(pictures))}
        self._texts = list(table)
        self._said = [[(table[text], number(label)) for text, label in picture.said] for picture in pictures]
        self._content_numbers = np.array([number(picture.content) for picture in pictures], np.int64)
        self._text_numbers = np.array([*(number(plain(text)) for text in self._texts), -1], np.int64)  # -1, none: last
        self._images, self._from, self._second = images, texts, second
        self._teacher_images, self._teacher_texts = teacher_images, teacher_texts
        if (texts is not None or teacher_texts is not None) and not all(self._said):
            raise UsageError("There are pictures without a text, and texts are to be read; leave those pictures out.")
        _check(len(pictures), len(self._texts), images, texts, teacher_images, teacher_texts)
        share = self._order.size // world
        self._mine = slice(rank * share, (rank + 1) * share)
        self._seed = seed
        self.per_epoch = self._order.per_epoch
        self._coming: dict[int, Future[Batch]] = {}
        self._lock = Lock()
        self._maker = ThreadPoolExecutor(1, "batches")
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decode")

    @property
    def notices(self) -> list[str]:
        return [*self._order.notices, *(self._images.notices if isinstance(self._images, Pixels) else ())]

    @property
    def size(self) -> int:
        """Rows of a step, over all processes."""
        return self._order.size

    @property
    def mark(self) -> str:
        """Hex, the same for the same pictures with the same texts in the same order."""
        return hashlib.sha256(self._content_numbers.tobytes() + self._text_numbers[:-1].tobytes()).hexdigest()[:16]

    def batch(self, step: int) -> Batch:
        """The rows of this process. step: from 0, in any order; the ones after it are begun."""
        wanted = range(step, step + 1 + _AHEAD)
        with self._lock:
            for old in set(self._coming) - set(wanted):
                self._coming.pop(old).cancel()
            for one in wanted:
                if one not in self._coming:
                    self._coming[one] = self._maker.submit(self._make, one)
            now = self._coming.pop(step)
        return now.result()

    def close(self) -> None:
        """Drop what was prepared, end the threads."""
        self._maker.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, step: int) -> Batch:
        rows = self._order.rows(step)[self._mine]
        chance = np.random.default_rng([self._seed, _STEP, step])
        says, views = (draw[self._mine] for draw in chance.random((2, self._order.size)))  # of all processes
        rows, images, second = self._views(step, rows, views)
        drawn = [self._one_of(self._said[row], says[at]) for at, row in enumerate(rows.tolist())]
        texts = np.array([text for text, _ in drawn], np.int64)
        labels = np.array([label for _, label in drawn], np.int64)
        words, mask = self._words(texts)
        return Batch(
            groups=torch.from_numpy(np.stack([self._content_numbers[rows], self._text_numbers[texts], labels], axis=1)),
            images=images,
            second=second,
            texts=words,
            mask=mask,
            teacher_images=_taken(self._teacher_images, rows),
            teacher_texts=_taken(self._teacher_texts, texts),
        )

    @staticmethod
    def _one_of(said: Sequence[tuple[int, int]], chance: float) -> tuple[int, int]:
        """(text, label); -1 for none. chance: drawn, 0 to 1."""
        return said[int(chance * len(said))] if said else (-1, -1)

    def _views(
        self, step: int, rows: NDArray[np.int64], views: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], Tensor | None, Tensor | None]:
        """-> rows, where a picture that is gone was replaced; images; second images. views: drawn, 0 to 1."""
        if self._images is None:
            return rows, None, None
        if isinstance(self._images, Pixels):
            pixels, kinds = self._images, (0, 1) if self._second else (0,)
            before = self._mine.start

            def made(at: int) -> tuple[int, list[NDArray[np.uint8]]]:
                return pixels.views(int(rows[at]), [[self._seed, _VIEW, step, before + at, kind] for kind in kinds])

            found = list(self._decoders.map(made, range(len(rows))))
            stacked = [torch.from_numpy(np.stack([of_row[kind] for _, of_row in found])) for kind in kinds]
            return np.array([row for row, _ in found], np.int64), stacked[0], stacked[1] if self._second else None
        which = (views * len(self._images)).astype(np.int64)
        return rows, self._of_views(which, rows), None

    def _of_views(self, views: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        """(n, w) float32: of each row the view that was drawn."""
        cached: Any = self._images
        made = np.empty((len(rows), cached[0].width), np.float32)
        for one, kept in enumerate(cached):
            made[views == one] = kept.take(rows[views == one])
        return torch.from_numpy(made)

    def _words(self, texts: NDArray[np.int64]) -> tuple[Tensor | None, Tensor | None]:
        if isinstance(self._from, Tokens):
            ids, mask = self._from([self._texts[text] for text in texts.tolist()])
            return torch.from_numpy(ids), torch.from_numpy(mask)
        return _taken(self._from, texts), None


def _taken(rows: Rows | None, which: NDArray[np.int64]) -> Tensor | None:
    return None if rows is None else torch.from_numpy(rows.take(which))


def _check(
    pictures: int,
    texts: int,
    images: Pixels | Sequence[Rows] | None,
    words: Tokens | Rows | None,
    teacher_images: Rows | None,
    teacher_texts: Rows | None,
) -> None:
    """Raises UsageError where the rows are not those of these pictures and texts."""
    of_images = [images] if isinstance(images, Pixels) else list(images or ())
    for rows, count, what in (
        *((one, pictures, "pictures") for one in (*of_images, teacher_images)),
        *((one, texts, "texts") for one in (words, teacher_texts)),
    ):
        if isinstance(rows, Pixels | Rows) and len(rows) != count:
            raise UsageError(f"There are {len(rows):,} rows for {count:,} {what}; cache those of all sets, in order.")
