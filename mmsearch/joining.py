"""Joint vectors: what an image shows and what its captions say, in one vector. Early combination: a query is compared
once with both together (late combination compares it with each, and combines the scores).

In: a catalog with vectors of images and of captions. Out: a vector of the kind `joint` for every image that has both.
The catalog deletes it whenever one of those it is made of comes or goes; the next index run makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from mmsearch.catalog import likeness, read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.types import Progress

CAPTION_WEIGHT = 0.5
IMAGES_PER_COMMIT = 1024


def join(catalog: Catalog, on_progress: Callable[[Progress], None], cancel: Event) -> None:
    """Make the joint vectors that are lacking, in every space. Needs no encoder."""
    with catalog.reading() as connection:
        todo = [(space.id, likeness.images_to_join(connection, space.id)) for space in read.spaces(connection)]
    total, done = sum(len(images) for _, images in todo), 0
    for space, images in todo:
        for start in range(0, len(images), IMAGES_PER_COMMIT):
            if cancel.is_set():
                return
            some = images[start : start + IMAGES_PER_COMMIT]
            with catalog.writing() as connection:
                join_images(connection, space, some)
            done += len(some)
            on_progress(Progress("captions", done=done, total=total))


def join_images(connection: Connection, space: int, images: Sequence[int]) -> None:
    """Make the joint vectors of these images in a space, in the caller's transaction; one that is there stays, and
    images without captions get none."""
    parts = likeness.to_join(connection, space, images)
    write.put_vectors(
        connection, space, "joint", [(image, joint_vector(row, captions)) for image, row, captions in parts]
    )


def joint_vector(row: NDArray[np.floating], captions: NDArray[np.floating]) -> NDArray[np.float32]:
    """An image's row (d,) and its captions' rows (n, d), n > 0, all of unit length -> (d,), unit length.

    A picture with many captions weighs what one with a single caption weighs: these are first brought into one.
    """
    said = _unit(captions.astype(np.float64).mean(axis=0))
    shown = row.astype(np.float64)
    joint = _unit((1 - CAPTION_WEIGHT) * shown + CAPTION_WEIGHT * said)
    return (joint if joint.any() else shown).astype(np.float32)


def _unit(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Zeros stay zeros: vectors that say the opposite of each other say nothing together."""
    length = np.linalg.norm(row)
    return row / length if length > 1e-6 else np.zeros_like(row)
