"""How well an encoder finds the right picture on one's own data.

In: a folder with `images/` and `captions.csv` or `captions.txt` (any number of captions an image), an encoder,
optionally a split (a text file with one image name a line). Out: recall at 1, 5, 10 and the median rank, for captions
looking for their image (t2i) and images looking for one of their captions (i2t); metrics.py says how ties count.

What is compared: every captioned image (of the split) with every caption of those images. Pictures in `images/` that
no caption names take no part. An image that is named but is not there or cannot be decoded is left out with its
captions, and reported: the figures are then those of a smaller, easier set.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch import captions, decode, files, metrics
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import PictureError, UsageError
from mmsearch.settings import Limits
from mmsearch.types import FailedFile, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXTS_AT_ONCE = 256  # only so that progress moves and the texts of a large set are not tokenised at once


@dataclass(frozen=True, slots=True)
class Figures:
    """Recalls in percent; the median rank counts from 1."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was compared and how it went. left_out: named images that could not be used, with the reason."""

    space: str
    images: int
    captions: int
    text_to_image: Figures
    image_to_text: Figures
    left_out: tuple[FailedFile, ...]


def evaluate(
    folder: Path,
    encoder: Encoder,
    *,
    split: Path | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Encode the captioned images of `folder` and their captions, rank everything against everything.

    UsageError: the folder lacks `images/` or a caption table, or nothing in it can be used.
    """
    limits = limits or Limits()
    report = on_progress or _silent
    report(Progress("scanning"))
    texts_of, left_out = _captioned(folder, split)
    pictures = folder / "images"

    rows: list[NDArray[np.float32]] = []
    used: list[str] = []
    prepared = _prepared([pictures / name for name in texts_of], encoder, limits)
    named = zip(texts_of, prepared, strict=True)
    while batch := list(islice(named, encoder.batch_size)):
        left_out += [FailedFile(pictures / name, str(got)) for name, got in batch if isinstance(got, PictureError)]
        good = [(name, got) for name, got in batch if not isinstance(got, PictureError)]
        used += [name for name, _ in good]
        rows.append(encoder.encode_images([array for _, array in good]))
        report(Progress("encoding", sum(map(len, rows)), len(texts_of)))
    if not used:
        first = f", the first because {left_out[0].error}" if left_out else ""
        raise UsageError(f"None of the images that the captions of {folder} name can be used{first}.")

    texts = [text for name in used for text in texts_of[name]]
    owners = np.repeat(np.arange(len(used)), [len(texts_of[name]) for name in used])
    text_rows = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        text_rows.append(encoder.encode_texts(texts[start : start + _TEXTS_AT_ONCE]))
        report(Progress("captions", sum(map(len, text_rows)), len(texts)))

    of_texts, of_images = metrics.retrieval_ranks(np.concatenate(rows), np.concatenate(text_rows), owners)
    return Evaluation(
        space=encoder.space.name,
        images=len(used),
        captions=len(texts),
        text_to_image=_figures(of_texts),
        image_to_text=_figures(of_images),
        left_out=tuple(left_out),
    )


def _silent(_progress: Progress) -> None:
    return


def _figures(ranks: NDArray[np.int64]) -> Figures:
    at_1, at_5, at_10 = (metrics.recall_at(ranks, k) for k in (1, 5, 10))
    return Figures(at_1, at_5, at_10, metrics.median_rank(ranks))


def _captioned(folder: Path, split: Path | None) -> tuple[dict[str, list[str]], list[FailedFile]]:
    """-> captions by image name, in the order of the table; what the split names without a caption is left out."""
    table = next((t for name in ("captions.csv", "captions.txt") if (t := folder / name).is_file()), None)
    if table is None or not (folder / "images").is_dir():
        raise UsageError(
            f"{folder} cannot be evaluated: it needs a folder images/ and a table captions.csv or captions.txt "
            "with the columns image,caption."
        )
    texts_of: dict[str, list[str]] = {}
    for name, text in captions.read_table(table):
        texts_of.setdefault(name, []).append(text)
    if split is None:
        return texts_of, []

    wanted = _names(split)
    without = [name for name in wanted if name not in texts_of]
    if len(without) == len(wanted):
        raise UsageError(f"No image that {split} names has a caption in {table}; it needs one image name a line.")
    left_out = [FailedFile(folder / "images" / name, f"it has no caption in {table.name}") for name in without]
    return {name: texts_of[name] for name in wanted if name in texts_of}, left_out


def _names(split: Path) -> list[str]:
    """Non-empty lines, each once."""
    try:
        lines = split.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"The split {split} cannot be read: {error.strerror}.") from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UsageError(f"The split {split} is empty; it needs one image name a line.")
    return names


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
