"""What measuring asks of the catalog: which images a space knows, what is written about them, where they lie.

Images come in the order of their sha256, so that a part of them is a fair sample, and the same one tomorrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, exists, select

from mmsearch.catalog.read import CHUNK
from mmsearch.catalog.tables import caption, file, image, image_tag, root, tag, vector


class Place(NamedTuple):
    """A present file of an image; sha256 of its bytes; relative to its root; size in bytes and mtime_ns as indexed."""

    image: int
    sha256: bytes
    path: bytes
    relative: bytes
    size: int
    mtime_ns: int


def _present() -> ColumnElement[bool]:
    return exists().where(and_(file.c.image == image.c.id, file.c.status == "ok"))


def encoded_images(connection: Connection, space_id: int) -> list[int]:
    """Images with a present file and a vector in the space, by sha256."""
    query = select(image.c.id).join(vector, and_(vector.c.owner == image.c.id, vector.c.kind == "images"))
    query = query.where(vector.c.space == space_id, _present()).order_by(image.c.sha256)
    return list(connection.execute(query).scalars())


def captions(connection: Connection) -> Iterator[tuple[int, int, str]]:
    """(image, caption, text) of every caption of an image with a present file, in the order they were added."""
    query = select(caption.c.image, caption.c.id, caption.c.text).join(image, image.c.id == caption.c.image)
    for row in connection.execute(query.where(_present()).order_by(caption.c.id).execution_options(yield_per=4096)):
        yield row[0], row[1], row[2]


def places(connection: Connection) -> Iterator[tuple[int, bytes, bytes]]:
    """(image, root path, relative path) of every present file in a folder; not what applications added by key."""
    query = select(file.c.image, root.c.path, file.c.relative).join(root, root.c.id == file.c.root)
    query = query.where(file.c.status == "ok", root.c.path != b"").order_by(file.c.id)
    for row in connection.execute(query.execution_options(yield_per=4096)):
        yield row[0], row[1], row[2]


def files(connection: Connection) -> Iterator[Place]:
    """Every present file in a folder, by image in the order of roots, then paths."""
    query = select(image.c.id, image.c.sha256, root.c.path, file.c.relative, file.c.size, file.c.mtime_ns)
    query = query.join(file, file.c.image == image.c.id).join(root, root.c.id == file.c.root)
    query = query.where(file.c.status == "ok", root.c.path != b"").order_by(image.c.id, root.c.id, file.c.relative)
    for row in connection.execute(query.execution_options(yield_per=4096)):
        yield Place(row[0], row[1], os.path.join(row[2], row[3]), row[3], row[4], row[5])


def tags(connection: Connection, source: str) -> Iterator[tuple[int, str]]:
    """(image, tag) of what this source gave to images with a present file, by image, then name."""
    query = select(image_tag.c.image, tag.c.name).join(tag, tag.c.id == image_tag.c.tag)
    query = query.join(image, image.c.id == image_tag.c.image).where(image_tag.c.source == source, _present())
    for row in connection.execute(query.order_by(image_tag.c.image, tag.c.name).execution_options(yield_per=4096)):
        yield row[0], row[1]


def rows_of(
    connection: Connection, space_id: int, kind: str, owners: Sequence[int], dimension: int
) -> tuple[list[int], NDArray[np.float32]]:
    """Stored vectors of these images or captions -> (positions in `owners` (m,), rows (m, dimension), unit length).
    Owners without a vector are passed over."""
    position = {owner: number for number, owner in enumerate(owners)}
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(owners), CHUNK):
        query = select(vector.c.owner, vector.c.data).where(vector.c.space == space_id, vector.c.kind == kind)
        rows = connection.execute(query.where(vector.c.owner.in_(owners[start : start + CHUNK])))
        found += [(position[row[0]], row[1]) for row in rows]
    found.sort()
    return [number for number, _ in found], _unit([data for _, data in found], dimension)


def image_rows(
    connection: Connection, space_id: int, dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Chunks of (images (m,), rows (m, dimension), unit length) of every image with a present file."""
    query = select(image.c.id, vector.c.data).join(vector, vector.c.owner == image.c.id)
    query = query.where(vector.c.space == space_id, vector.c.kind == "images", _present()).order_by(vector.c.id)
    for part in connection.execute(query.execution_options(yield_per=4096)).partitions():
        yield np.array([row[0] for row in part], np.int64), _unit([row[1] for row in part], dimension)


def _unit(rows: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    wide = np.frombuffer(b"".join(rows), "<f2").astype(np.float64).reshape(len(rows), dimension)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)
