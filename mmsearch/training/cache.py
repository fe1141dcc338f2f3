"""What locked towers say about pictures and texts, computed once and kept on disk.

In: a `Locked`, pictures or texts. Out: `Rows`, in their order. A row is kept under the tower's fingerprint, the view
and the picture's content, so another set, or the same set with more pictures, computes only what is new. A run that
is killed loses at most the last SHARD rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import ModelError, PictureError
from mmsearch.training.ahead import ahead
from mmsearch.training.examples import OnProgress
from mmsearch.training.locked import Locked
from mmsearch.training.picture import Picture
from mmsearch.training.rows import SHARD, Precision, Rows, Shelf
from mmsearch.types import Progress

Done = Callable[[int], None]
View = Literal["plain", "mirrored"]


class FeatureCache:
    """The cache in a folder. precision: of what is stored. notices: lines worth showing."""

    def __init__(self, folder: Path, precision: Precision = "float16") -> None:
        self._folder, self._precision = folder, precision
        self.notices: list[str] = []

    def images(
        self,
        locked: Locked,
        pictures: Sequence[Picture],
        view: View = "plain",
        *,
        on_progress: OnProgress | None = None,
    ) -> Rows:
        """A row for each picture. mirrored: of what it is with left and right exchanged.

        Raises ModelError where the tower gives what is no number, UsageError for a cache that cannot be written,
        PictureError for a picture that was read before and cannot be read any more.
        """

        def prepared(row: int) -> NDArray[Any]:
            return _prepared(locked, pictures[row], view)

        def encode(which: Sequence[int], report: Done) -> NDArray[np.float32]:
            coming = ahead(prepared, which, 2 * locked.batch)
            made: list[NDArray[np.float32]] = []
            while batch := list(islice(coming, locked.batch)):
                made.append(locked.images(batch))
                report(sum(map(len, made)))
            return np.concatenate(made)

        contents = [bytes.fromhex(picture.content) for picture in pictures]
        names = [str(picture.place) for picture in pictures]
        shelf = self._shelf("images", locked.image_fingerprint, view)
        return self._filled(shelf, contents, names, encode, locked.name, on_progress)

    def texts(self, locked: Locked, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Rows:
        """A row for each text; equal texts share one. Raises as `images` does."""
        contents = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]

        def encode(which: Sequence[int], report: Done) -> NDArray[np.float32]:
            made = locked.texts([texts[row] for row in which])
            report(len(made))
            return made

        shelf = self._shelf("texts", locked.text_fingerprint, "plain")
        return self._filled(shelf, contents, texts, encode, locked.name, on_progress)

    def _shelf(self, kind: str, fingerprint: str, view: str) -> Shelf:
        key = hashlib.sha256(json.dumps([kind, fingerprint, view, self._precision]).encode()).hexdigest()[:32]
        shelf = Shelf(self._folder / f"{kind}-{key}", self._precision)
        if shelf.damaged:
            self.notices.append(f"{shelf.damaged} damaged files of the cache {self._folder} are made again.")
        return shelf

    def _filled(
        self,
        shelf: Shelf,
        contents: Sequence[bytes],
        names: Sequence[str],
        encode: Callable[[Sequence[int], Done], NDArray[np.float32]],
        tower: str,
        on_progress: OnProgress | None,
    ) -> Rows:
        """What is missing is encoded, a shard at a time."""
        missing = shelf.missing(contents)
        for start in range(0, len(missing), SHARD):
            which = missing[start : start + SHARD]

            def report(done: int, before: int = start) -> None:
                if on_progress is not None:
                    on_progress(Progress("encoding", before + done, len(missing)))

            with np.errstate(over="ignore"):  # what becomes infinite is found below
                rows = encode(which, report).astype(self._precision)
            wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(wrong):
                raise ModelError(
                    f"The tower {tower} gives what is no number, or too large for {self._precision}, for "
                    f"{len(wrong)} of {len(which)}, first for {names[which[wrong[0]]]}; load other weights, or keep "
                    "its rows in float32."
                )
            shelf.add([contents[row] for row in which], rows)
        return shelf.rows(contents)


def _prepared(locked: Locked, picture: Picture, view: View) -> NDArray[Any]:
    from PIL import ImageOps

    try:
        opened = picture.open(locked.side)
    except PictureError as error:
        raise PictureError(
            f"{picture.place} cannot be read any more: {error}; begin again, and it will be left out."
        ) from error
    return locked.prepare(ImageOps.mirror(opened) if view == "mirrored" else opened)
