"""Captions in bulk: tables that people name with --captions, and texts that have no vector in a space yet.

A row of a table names a picture by its path beside the table, below a root, or absolute; failing that, by its file
name alone, if that can only mean one picture. All captions of a picture replace those it had from tables before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from mmsearch.captions import read_table
from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import RootRow
from mmsearch.encoders.protocol import Encoder
from mmsearch.errors import ModelError
from mmsearch.types import Progress

CAPTIONS_PER_COMMIT = 256

Table = tuple[str, list[tuple[str, str]]]  # folder of the table, (image name, caption) rows


def read_tables(paths: Sequence[Path]) -> list[Table]:
    """Raises UsageError for a table that cannot be read."""
    return [(os.path.realpath(path.parent), read_table(path)) for path in paths]


def apply_tables(
    catalog: Catalog,
    encoder: Encoder,
    space: int,
    roots: Iterable[RootRow],
    tables: Sequence[Table],
    on_progress: Callable[[Progress], None],
    cancel: Event,
) -> tuple[int, list[str]]:
    """Bring the captions of the tables into the catalog -> how many were added, what the person should know."""
    with catalog.reading() as connection:
        wanted, notices = _match(tables, {root.path: read.images_at(connection, root.id) for root in roots})
        stored = read.captions_by_image(connection, "table")
    todo = [(image, texts) for image, texts in wanted.items() if set(texts) != set(stored.get(image, ()))]
    added = done = 0
    while todo and not cancel.is_set():
        batch, texts = [], dict[str, None]()
        while todo and len(texts) < CAPTIONS_PER_COMMIT:
            batch.append(todo.pop(0))
            texts.update(dict.fromkeys(text for text in batch[-1][1] if text not in stored.get(batch[-1][0], ())))
        vectors = dict(zip(texts, encode_texts(encoder, list(texts)), strict=True))
        with catalog.writing() as connection:
            known = read.existing_images(connection, [image for image, _ in batch])
            for image, mine in batch:
                if image in known:
                    added += write.replace_captions(connection, space, image, "table", mine, vectors)
        done += len(batch)
        on_progress(Progress("captions", done=done, total=done + len(todo)))
    return added, notices


def _match(tables: Sequence[Table], present: dict[bytes, dict[bytes, int]]) -> tuple[dict[int, list[str]], list[str]]:
    """-> image to its captions, in the order of the tables; notices about names that match nothing, or too much."""
    by_path: dict[str, int] = {}
    by_name: dict[str, set[int]] = {}
    for root, images in present.items():
        for relative, image in images.items():
            by_path[os.fsdecode(os.path.join(root, relative))] = image
            by_name.setdefault(os.fsdecode(os.path.basename(relative)), set()).add(image)
    wanted: dict[int, list[str]] = {}
    unknown, ambiguous = dict[str, None](), dict[str, None]()
    for folder, rows in tables:
        places = [folder, *map(os.fsdecode, present)]
        for name, text in rows:
            paths = (os.path.normpath(os.path.join(place, name)) for place in places)
            exact = next((by_path[path] for path in paths if path in by_path), None)
            candidates = by_name.get(os.path.basename(name), set()) if exact is None else {exact}
            if len(candidates) == 1:
                wanted.setdefault(next(iter(candidates)), []).append(text)
            else:
                (ambiguous if candidates else unknown)[name] = None
    notices = []
    if unknown:
        notices.append(
            f"{len(unknown)} names in the caption tables match no picture here, such as {next(iter(unknown))}."
        )
    if ambiguous:
        notices.append(
            f"{len(ambiguous)} names in the caption tables match several pictures, such as {next(iter(ambiguous))}; "
            "write their folders, too."
        )
    return wanted, notices


def encode_waiting(
    catalog: Catalog, encoder: Encoder, space: int, on_progress: Callable[[Progress], None], cancel: Event
) -> None:
    """Captions that have no vector in this space yet, as after a change of model."""
    done = last = 0
    while not cancel.is_set():
        with catalog.reading() as connection:
            waiting = read.captions_to_encode(connection, space, last, CAPTIONS_PER_COMMIT)
        if not waiting:
            return
        vectors = encode_texts(encoder, [text for _, text in waiting])
        with catalog.writing() as connection:
            owned = [(identity, vector) for (identity, _), vector in zip(waiting, vectors, strict=True)]
            write.put_caption_vectors(connection, space, owned)
        last = waiting[-1][0]
        done += len(waiting)
        on_progress(Progress("captions", done=done))


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, dimension) unit-length rows. ModelError where the encoder gives something else."""
    vectors = encoder.encode_texts(texts)
    if vectors.shape != (len(texts), encoder.space.dimension) or not np.isfinite(vectors).all():
        raise ModelError(
            f"The encoder {encoder.space.name} gave {vectors.shape} values for {len(texts)} texts, or some that are "
            "not finite; nothing of this batch was kept."
        )
    return vectors
