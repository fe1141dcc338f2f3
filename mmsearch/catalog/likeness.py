"""What pictures are compared by: perceptual hashes, vectors of images and captions, where their files lie.

All functions read; those that read vectors give float16 rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, exists, func, select

from mmsearch.catalog.read import chunks
from mmsearch.catalog.tables import caption, file, image, root, vector

_present = exists().where(and_(file.c.image == image.c.id, file.c.status == "ok"))


class CopyRow(NamedTuple):
    """A present file of an image. root: b"" where an application added it by key, which is `relative` then."""

    image: int
    sha256: bytes
    width: int | None
    height: int | None
    taken_at: datetime | None
    root: bytes
    relative: bytes
    size: int
    mtime_ns: int


def images_with_copies(connection: Connection) -> list[int]:
    """Images that have several present files, ascending."""
    query = select(file.c.image).where(file.c.status == "ok", file.c.image.is_not(None)).group_by(file.c.image)
    return list(connection.execute(query.having(func.count() > 1).order_by(file.c.image)).scalars())


def copies(connection: Connection, images: Sequence[int]) -> dict[int, list[CopyRow]]:
    """image -> its present files, in the order of roots, then paths; images without any are left out."""
    columns = (image.c.id, image.c.sha256, image.c.width, image.c.height, image.c.taken_at)
    places = (root.c.path, file.c.relative, file.c.size, file.c.mtime_ns)
    query = select(*columns, *places).join(file, file.c.image == image.c.id).join(root, root.c.id == file.c.root)
    query = query.where(file.c.status == "ok").order_by(root.c.id, file.c.relative)
    found: dict[int, list[CopyRow]] = {}
    for ids in chunks(images):
        for row in connection.execute(query.where(image.c.id.in_(ids))):
            found.setdefault(row[0], []).append(CopyRow._make(row))
    return found


def present_hashes(connection: Connection) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(images (n,) ascending, perceptual hashes (n, 16)) of those that have a present file and a hash."""
    query = select(image.c.id, image.c.perceptual_hash).where(image.c.perceptual_hash.is_not(None), _present)
    rows = connection.execute(query.order_by(image.c.id)).all()
    hashes = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
    return np.array([row[0] for row in rows], np.int64), hashes.reshape(-1, 16)


def present_vectors(
    connection: Connection, space_id: int, dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """(images (n,) ascending, rows (n, dimension)) of those that have a present file and a vector in the space."""
    query = select(image.c.id, vector.c.data).join(image, image.c.id == vector.c.owner)
    query = query.where(vector.c.space == space_id, vector.c.kind == "images", _present).order_by(image.c.id)
    ids: list[int] = []
    blocks: list[bytes] = []
    for part in connection.execute(query.execution_options(yield_per=4096)).partitions():
        ids += [row[0] for row in part]
        blocks.append(b"".join(row[1] for row in part))
    rows = np.frombuffer(b"".join(blocks), "<f2").astype(np.float16, copy=False)
    return np.array(ids, np.int64), rows.reshape(len(ids), dimension)


def present_owners(connection: Connection, space_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(vectors (n,) ascending, their images (n,)) of those that have a present file."""
    query = select(vector.c.id, vector.c.owner).join(image, image.c.id == vector.c.owner)
    query = query.where(vector.c.space == space_id, vector.c.kind == "images", _present).order_by(vector.c.id)
    pairs = np.fromiter((value for row in connection.execute(query) for value in row), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def images_to_join(connection: Connection, space_id: int) -> list[int]:
    """Images that have a vector and a caption with a vector in the space, but no joint vector there; ascending."""
    joint, of_caption = vector.alias("joint"), vector.alias("of_caption")
    joined = exists().where(joint.c.space == space_id, joint.c.kind == "joint", joint.c.owner == vector.c.owner)
    mine = and_(of_caption.c.space == space_id, of_caption.c.kind == "captions", of_caption.c.owner == caption.c.id)
    told = select(caption.c.id).join(of_caption, mine).where(caption.c.image == vector.c.owner).exists()
    query = select(vector.c.owner).where(vector.c.space == space_id, vector.c.kind == "images", ~joined, told)
    return list(connection.execute(query.order_by(vector.c.owner)).scalars())


def to_join(
    connection: Connection, space_id: int, images: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float16], NDArray[np.float16]]]:
    """(image, its row (d,), its captions' rows (n, d)), of those that have both. The rows come in the order of the
    captions' texts, which is the same in every collection."""
    for ids in chunks(images):
        told: dict[int, list[bytes]] = {}
        mine = and_(vector.c.space == space_id, vector.c.kind == "captions", vector.c.owner == caption.c.id)
        rows: Any = select(caption.c.image, vector.c.data).join(vector, mine).where(caption.c.image.in_(ids))
        for owner, data in connection.execute(rows.order_by(caption.c.image, caption.c.text, caption.c.source)):
            told.setdefault(owner, []).append(data)
        seen = select(vector.c.owner, vector.c.data).where(vector.c.space == space_id, vector.c.kind == "images")
        for owner, data in connection.execute(seen.where(vector.c.owner.in_(ids)).order_by(vector.c.owner)).all():
            if owner in told:
                captions = np.frombuffer(b"".join(told[owner]), "<f2")
                yield owner, np.frombuffer(data, "<f2"), captions.reshape(len(told[owner]), -1)
