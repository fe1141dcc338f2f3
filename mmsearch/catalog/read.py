"""Every question put to the catalog. Each function takes a connection, so that several see one state.

Ids and hashes go in and out as plain values; vectors as float16 rows. This file is longer than most because what every
run and every search asks stands here together; questions of one capability have files of their own beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    exists,
    func,
    null,
    or_,
    select,
    type_coerce,
)

from mmsearch.catalog.memory import remember
from mmsearch.catalog.tables import caption, file, image, root, space, vector
from mmsearch.catalog.where import condition
from mmsearch.filters import Node

_T = TypeVar("_T")

CHUNK = 500  # values in one IN (...): SQLite's oldest limit is 999
ALLOWED_KEPT = 8  # id sets of filters kept with each connection: 0.8 MB each at 100,000 images
COUNTS_KEPT = 100
SPACES_KEPT = 16


class RootRow(NamedTuple):
    """A root; `path` is b"" for the one that holds what applications add by key."""

    id: int
    path: bytes
    device: str | None


class FileRow(NamedTuple):
    """A known file, and whether its image has a vector in the space that was asked about."""

    id: int
    size: int
    mtime_ns: int
    sidecar: str | None
    image: int | None
    status: str
    tried_with: str | None
    encoded: bool


class Place(NamedTuple):
    """Where an image lies."""

    file: int
    root: RootRow
    relative: bytes
    sidecar: str | None


class SpaceRow(NamedTuple):
    """A space and the generations that serve it."""

    id: int
    encoder: str
    fingerprint: str
    dimension: int
    state: str
    current: bool
    images_generation: str | None
    captions_generation: str | None
    joint_generation: str | None

    def generation(self, kind: str) -> str | None:
        names = {"images": self.images_generation, "captions": self.captions_generation, "joint": self.joint_generation}
        return names[kind]


@dataclass(frozen=True, slots=True)
class Found:
    """A vector and what it belongs to. owner: the image or caption whose vector it is. caption is None for images."""

    vector: int
    owner: int
    image: int
    sha256: bytes
    caption: str | None
    row: NDArray[np.float16]


def roots(connection: Connection) -> list[RootRow]:
    """All folders, in the order they were added; without the one for keys."""
    rows = connection.execute(
        select(root.c.id, root.c.path, root.c.device).where(root.c.path != b"").order_by(root.c.id)
    )
    return [RootRow(*row) for row in rows]


def files_below(connection: Connection, root_id: int, under: bytes, space_id: int) -> dict[bytes, FileRow]:
    """relative path -> row, of one root or of its subfolder `under`."""
    has_vector = exists().where(
        and_(vector.c.space == space_id, vector.c.kind == "images", vector.c.owner == file.c.image)
    )
    query = select(
        file.c.relative,
        file.c.id,
        file.c.size,
        file.c.mtime_ns,
        file.c.sidecar,
        file.c.image,
        file.c.status,
        file.c.tried_with,
        has_vector,
    ).where(file.c.root == root_id)
    if under:  # b"0" follows b"/": everything that begins with `under/`
        query = query.where(file.c.relative >= under + b"/", file.c.relative < under + b"0")
    return {row[0]: FileRow._make((*row[1:8], bool(row[8]))) for row in connection.execute(query)}


def keyed_image(connection: Connection, key: bytes) -> tuple[int, int | None] | None:
    """(file, image) of what an application added under a key, or None."""
    query = select(file.c.id, file.c.image).join(root, root.c.id == file.c.root)
    row = connection.execute(query.where(root.c.path == b"", file.c.relative == key)).first()
    return (row[0], row[1]) if row else None


def root_has_images(connection: Connection, root_id: int) -> bool:
    """Whether a root has files that are, or were, images; others are only failures."""
    query = select(file.c.id).where(file.c.root == root_id, file.c.image.is_not(None)).limit(1)
    return connection.execute(query).first() is not None


def image_of(connection: Connection, sha256: bytes, space_id: int) -> tuple[int, bool] | None:
    """sha256 -> (image id, has a vector in the space), or None where the content is not known."""
    row = connection.execute(_image_of(), {"space": space_id, "sha256": sha256}).first()
    return (row[0], bool(row[1])) if row else None


# Statements of searches, and of each picture in a run, are built once: that costs more than running them.


@cache
def _image_of() -> Select[Any]:
    mine = and_(vector.c.space == bindparam("space"), vector.c.kind == "images", vector.c.owner == image.c.id)
    return select(image.c.id, exists().where(mine)).where(image.c.sha256 == bindparam("sha256"))


def places(connection: Connection, image_id: int) -> list[Place]:
    """Where an image lies or lay, whatever the status, in a fixed order."""
    query = (
        select(file.c.id, root.c.id, root.c.path, root.c.device, file.c.relative, file.c.sidecar)
        .join(root, root.c.id == file.c.root)
        .where(file.c.image == image_id)
        .order_by(root.c.id, file.c.relative)
    )
    return [Place(r[0], RootRow(r[1], r[2], r[3]), r[4], r[5]) for r in connection.execute(query)]


def present_files(
    connection: Connection, images: Sequence[int], filters: Node | None = None
) -> dict[int, list[tuple[bytes, bytes]]]:
    """image -> its present files that satisfy the filters, as (root path, relative path), in the order of roots, then
    paths."""
    query = _present_files()
    if filters is not None:
        query = query.join(image, image.c.id == file.c.image).where(condition(filters))
    found: dict[int, list[tuple[bytes, bytes]]] = {}
    for ids in chunks(images):
        for image_id, path, relative in connection.execute(query, {"ids": ids}):
            found.setdefault(image_id, []).append((path, relative))
    return found


@cache
def _present_files() -> Select[Any]:
    return (
        select(file.c.image, root.c.path, file.c.relative)
        .join(root, root.c.id == file.c.root)
        .where(file.c.image.in_(bindparam("ids", expanding=True)), file.c.status == "ok")
        .order_by(root.c.id, file.c.relative)
    )


# --- captions ---------------------------------------------------------------------------------------------------


def existing_images(connection: Connection, images: Sequence[int]) -> set[int]:
    """Of these images, those that are in the catalog."""
    found: set[int] = set()
    for ids in chunks(images):
        found.update(connection.execute(select(image.c.id).where(image.c.id.in_(ids))).scalars())
    return found


def images_at(connection: Connection, root_id: int) -> dict[bytes, int]:
    """relative path -> image, of the present files of a root."""
    query = select(file.c.relative, file.c.image).where(file.c.root == root_id, file.c.status == "ok")
    return {row[0]: row[1] for row in connection.execute(query)}


def captions_by_image(connection: Connection, source: str) -> dict[int, list[str]]:
    """image -> its captions of one source, in the order they were added."""
    found: dict[int, list[str]] = {}
    query = select(caption.c.image, caption.c.text).where(caption.c.source == source).order_by(caption.c.id)
    for image_id, text in connection.execute(query):
        found.setdefault(image_id, []).append(text)
    return found


def captions_of(connection: Connection, image_id: int) -> set[tuple[str, str]]:
    """(source, text) of the captions of an image."""
    query = select(caption.c.source, caption.c.text).where(caption.c.image == image_id)
    return {(row[0], row[1]) for row in connection.execute(query)}


def captions_to_encode(connection: Connection, space_id: int, above: int, limit: int) -> list[tuple[int, str]]:
    """(caption, text) of those without a vector in the space, with ids greater than `above`, in ascending id."""
    has_vector = exists().where(
        and_(vector.c.space == space_id, vector.c.kind == "captions", vector.c.owner == caption.c.id)
    )
    query = select(caption.c.id, caption.c.text).where(caption.c.id > above, ~has_vector)
    query = query.order_by(caption.c.id).limit(limit)
    return [(row[0], row[1]) for row in connection.execute(query)]


# --- spaces and vectors -----------------------------------------------------------------------------------------


def spaces(connection: Connection) -> list[SpaceRow]:
    """All spaces, in the order they were made."""
    return [SpaceRow(*row) for row in connection.execute(_spaces())]


@cache
def _spaces() -> Select[Any]:
    columns = (
        space.c.id,
        space.c.encoder,
        space.c.fingerprint,
        space.c.dimension,
        space.c.state,
        space.c.current,
        space.c.images_generation,
        space.c.captions_generation,
        space.c.joint_generation,
    )
    return select(*columns).order_by(space.c.id)


def rows_above(
    connection: Connection, space_id: int, kind: str, above: int, dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Chunks of (ids (m,), rows (m, dimension)) in ascending id, of the vectors with ids greater than `above`."""
    which = {"space": space_id, "kind": kind, "above": above}
    for part in connection.execute(_rows_above(), which).partitions():
        ids = np.array([row[0] for row in part], np.int64)
        rows = np.frombuffer(b"".join(row[1] for row in part), "<f2").astype(np.float16, copy=False)
        yield ids, rows.reshape(len(ids), dimension)


@cache
def _rows_above() -> Select[Any]:
    return (
        select(vector.c.id, vector.c.data)
        .where(vector.c.space == bindparam("space"), vector.c.kind == bindparam("kind"))
        .where(vector.c.id > bindparam("above"))
        .order_by(vector.c.id)
        .execution_options(yield_per=4096)
    )


def vectors_with_checksums(connection: Connection) -> Iterator[tuple[int, int, bytes, int]]:
    """(id, space, data, crc) of every vector, in ascending id."""
    query = select(vector.c.id, vector.c.space, vector.c.data, vector.c.crc).order_by(vector.c.id)
    for row in connection.execute(query.execution_options(yield_per=4096)):
        yield row[0], row[1], row[2], row[3]


def count_vectors(connection: Connection, space_id: int, kind: str, *, up_to: int | None = None) -> int:
    """How many vectors a space has of a kind, all or those with ids up to `up_to`."""
    query = select(func.count()).select_from(vector).where(vector.c.space == space_id, vector.c.kind == kind)
    if up_to is not None:
        query = query.where(vector.c.id <= up_to)
    return int(connection.execute(query).scalar_one())


def newest_vector(connection: Connection, space_id: int, kind: str) -> int:
    """The highest vector id of a space and kind; 0 when there is none."""
    query = select(func.max(vector.c.id)).where(vector.c.space == space_id, vector.c.kind == kind)
    return int(connection.execute(query).scalar() or 0)


def visible(connection: Connection, kind: str, vectors: Iterable[int]) -> list[Found]:
    """Of these vectors, those whose image has a present file, with what they belong to; in no order."""
    found: list[Found] = []
    for ids in chunks(list(vectors)):
        rows = connection.execute(_visible(kind), {"ids": ids})
        found += [Found(row[0], row[1], row[2], row[3], row[4], np.frombuffer(row[5], "<f2")) for row in rows]
    return found


@cache
def _visible(kind: str) -> Select[Any]:
    present = exists().where(and_(file.c.image == image.c.id, file.c.status == "ok"))
    if kind == "captions":
        joined = vector.join(caption, caption.c.id == vector.c.owner).join(image, image.c.id == caption.c.image)
        text: Any = caption.c.text
    else:
        joined, text = vector.join(image, image.c.id == vector.c.owner), null()
    columns = (vector.c.id, vector.c.owner, image.c.id, image.c.sha256, text, vector.c.data)
    wanted = vector.c.id.in_(bindparam("ids", expanding=True))
    return select(*columns).select_from(joined).where(present, wanted)


def owned(connection: Connection, space_id: int, kind: str, owners: Sequence[int]) -> list[Found]:
    """Images or captions, with their vectors where the space has them (else an empty row), in the order given."""
    found: dict[int, Found] = {}
    for ids in chunks(owners):
        for row in connection.execute(_owned(kind), {"ids": ids, "space": space_id}):
            data = np.frombuffer(row[5] or b"", "<f2")
            found[row[1]] = Found(row[0] or 0, row[1], row[2], row[3], row[4], data)
    return [found[one] for one in owners if one in found]


@cache
def _owned(kind: str) -> Select[Any]:
    if kind == "captions":
        what: Any = caption.join(image, image.c.id == caption.c.image)
        owner, text = caption.c.id, cast("Any", caption.c.text)
    else:
        what, owner, text = image, image.c.id, null()
    mine = and_(vector.c.owner == owner, vector.c.kind == kind, vector.c.space == bindparam("space"))
    columns = (vector.c.id, owner, image.c.id, image.c.sha256, text, vector.c.data)
    wanted = owner.in_(bindparam("ids", expanding=True))
    return select(*columns).select_from(what.outerjoin(vector, mine)).where(wanted)


def allowed_ids(connection: Connection, space_id: int, kind: str, filters: Node | None) -> NDArray[np.int64]:
    """Ascending ids of the vectors of a space and kind whose image has a present file that satisfies the filters.
    `joint`: also those of images that have no joint vector. Kept with the connection for as long as nobody changes
    the catalog."""

    def read_ids() -> NDArray[np.int64]:
        query = _vectors_of(space_id, kind, satisfying(filters)).order_by(vector.c.id)
        return np.array(connection.execute(query).scalars().all(), np.int64)

    return remember(connection, "allowed", (space_id, kind, filters), read_ids, ALLOWED_KEPT)


def satisfying(filters: Node | None) -> Select[Any]:
    """Ids of the images that have a present file that satisfies the filters."""
    query = select(file.c.image).where(file.c.status == "ok", file.c.image.is_not(None))
    if filters is not None:
        query = query.join(image, image.c.id == file.c.image).join(root, root.c.id == file.c.root)
        query = query.where(condition(filters))
    return query


def has_file(image_id: ColumnElement[int], filters: Node | None) -> ColumnElement[bool]:
    """Whether an image has a present file that satisfies the filters, asked for one image at a time: where few images
    are asked about, this is quicker than `satisfying`."""
    there = select(file.c.id).where(file.c.image == image_id, file.c.status == "ok")
    if filters is not None:
        there = there.join(image, image.c.id == file.c.image).join(root, root.c.id == file.c.root)
        there = there.where(condition(filters))
    return there.correlate_except(file, image, root).exists()


def _vectors_of(space_id: int, kind: str, images: Select[Any]) -> Select[Any]:
    query = select(vector.c.id).where(vector.c.space == space_id)
    if kind == "captions":
        texts = select(caption.c.id).where(caption.c.image.in_(images))
        return query.where(vector.c.kind == kind, vector.c.owner.in_(texts))
    if kind == "joint":
        joint = select(vector.c.owner).where(vector.c.space == space_id, vector.c.kind == "joint")
        alone = and_(vector.c.kind == "images", vector.c.owner.not_in(joint))
        return query.where(or_(vector.c.kind == "joint", alone), vector.c.owner.in_(images))
    return query.where(vector.c.kind == kind, vector.c.owner.in_(images))


def count_satisfying(connection: Connection, filters: Node | None) -> int:
    """How many images have a present file that satisfies the filters. Kept as `allowed_ids` are."""

    def count() -> int:
        images = satisfying(filters).subquery()
        return int(connection.execute(select(func.count(images.c.image.distinct()))).scalar_one())

    return remember(connection, "counts", filters, count, COUNTS_KEPT)


def listing(connection: Connection, filters: Node | None, sort: str) -> NDArray[np.int64]:
    """All images that satisfy filters: by `name` of their first such file in the order of roots and paths, capitals
    aside; else the newest first, those without a date last, equal ones by sha256. Kept as `allowed_ids` are."""
    if sort != "name":
        sort = "date"

    def by_date() -> NDArray[np.int64]:
        query = select(image.c.id).where(image.c.id.in_(satisfying(filters)))
        query = query.order_by(image.c.taken_at.desc().nulls_last(), image.c.sha256)
        return np.array(connection.execute(query).scalars().all(), np.int64)

    def by_name() -> NDArray[np.int64]:
        where = satisfying(filters).with_only_columns(file.c.image, root.c.path, file.c.relative)
        if filters is None:
            where = where.join(root, root.c.id == file.c.root)
        first: dict[int, tuple[str, bytes, bytes]] = {}
        for one, path, relative in connection.execute(where.order_by(root.c.id, file.c.relative)):
            if one not in first:
                first[one] = name_order(path, relative)
        return np.array(sorted(first, key=first.__getitem__), np.int64)

    make = by_name if sort == "name" else by_date
    return remember(connection, "listings", (filters, sort), make, ALLOWED_KEPT)


def name_order(path: bytes, relative: bytes) -> tuple[str, bytes, bytes]:
    """What files are sorted by: their names, capitals aside; then root and path."""
    return os.fsdecode(os.path.basename(relative)).casefold(), path, relative


def without_rows(connection: Connection, images: Sequence[int]) -> list[Found]:
    """Images as they are found where nothing but filters were asked for, in the order given."""
    none = np.empty(0, np.float16)
    hashes: dict[int, bytes] = {}
    for ids in chunks(images):
        rows = connection.execute(select(image.c.id, image.c.sha256).where(image.c.id.in_(ids)))
        hashes.update((row[0], row[1]) for row in rows)
    return [Found(0, one, one, hashes[one], None, none) for one in images]


def taken_and_size(
    connection: Connection, images: Sequence[int]
) -> dict[int, tuple[datetime | None, int | None, int | None]]:
    """image -> when it was taken, its width and height in pixels."""
    found: dict[int, tuple[datetime | None, int | None, int | None]] = {}
    for ids in chunks(images):
        found.update((row[0], (row[1], row[2], row[3])) for row in connection.execute(_taken_and_size(), {"ids": ids}))
    return found


@cache
def _taken_and_size() -> Select[Any]:
    columns = (image.c.id, image.c.taken_at, image.c.width, image.c.height)
    return select(*columns).where(image.c.id.in_(bindparam("ids", expanding=True)))


def perceptual_hashes(connection: Connection, images: Sequence[int]) -> dict[int, bytes | None]:
    """image -> its perceptual hash."""
    found: dict[int, bytes | None] = {}
    for ids in chunks(images):
        rows = connection.execute(select(image.c.id, image.c.perceptual_hash).where(image.c.id.in_(ids)))
        found.update((row[0], row[1]) for row in rows)
    return found


def calibration(connection: Connection, space_id: int) -> str | None:
    """What an index run stored of how scores of a space become probabilities, as JSON text. Kept with the connection
    for as long as nobody changes the catalog."""

    def read_text() -> str | None:
        query = select(type_coerce(space.c.calibration, Text)).where(space.c.id == space_id)
        return connection.execute(query).scalar()

    return remember(connection, "calibration", space_id, read_text, SPACES_KEPT)


def sample_of_images(connection: Connection, space_id: int, most: int, dimension: int) -> NDArray[np.float32]:
    """(n, dimension) vectors of at most `most` images of a space: those whose hashes come first, which is as good as
    chance, and the same whenever the space holds the same images."""
    query = select(vector.c.data).join(image, image.c.id == vector.c.owner)
    query = query.where(vector.c.space == space_id, vector.c.kind == "images").order_by(image.c.sha256).limit(most)
    data = b"".join(connection.execute(query).scalars())
    return np.frombuffer(data, "<f2").astype(np.float32).reshape(-1, dimension)


def ids_above(connection: Connection, space_id: int, kind: str, above: int) -> NDArray[np.int64]:
    """Ascending ids of the vectors of a space and kind that are greater than `above`."""
    query = select(vector.c.id).where(vector.c.space == space_id, vector.c.kind == kind, vector.c.id > above)
    return np.array(connection.execute(query.order_by(vector.c.id)).scalars().all(), np.int64)


# --- overview ---------------------------------------------------------------------------------------------------


def count_images(connection: Connection) -> int:
    """Contents with at least one present file."""
    present = exists().where(and_(file.c.image == image.c.id, file.c.status == "ok"))
    return int(connection.execute(select(func.count()).select_from(image).where(present)).scalar_one())


def count_captions(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(caption)).scalar_one())


def count_files(connection: Connection, *, status: str | None = None) -> dict[int, int]:
    """root -> how many files it has, all or those of one status."""
    query = select(file.c.root, func.count()).group_by(file.c.root)
    if status is not None:
        query = query.where(file.c.status == status)
    return {row[0]: row[1] for row in connection.execute(query)}


def failed_files(connection: Connection) -> list[tuple[bytes, bytes, str]]:
    """(root path, relative path, error), in the order of roots, then paths."""
    query = (
        select(root.c.path, file.c.relative, file.c.error)
        .join(root, root.c.id == file.c.root)
        .where(file.c.status == "failed")
        .order_by(root.c.id, file.c.relative)
    )
    return [(row[0], row[1], row[2] or "") for row in connection.execute(query)]


def keyed_without_vector(connection: Connection, space_id: int, other: int) -> int:
    """Images known by key alone that have a vector in the space `other` but none in `space_id`."""
    in_folder = exists().where(
        and_(file.c.image == image.c.id, file.c.status == "ok", root.c.id == file.c.root, root.c.path != b"")
    )

    def has_vector(space: int) -> Any:
        return exists().where(and_(vector.c.space == space, vector.c.kind == "images", vector.c.owner == image.c.id))

    query = select(func.count()).select_from(image).where(~in_folder, has_vector(other), ~has_vector(space_id))
    return int(connection.execute(query).scalar_one())


def vectors_without_owner(connection: Connection) -> int:
    """Vectors whose image or caption is gone; none, unless something else wrote into the catalog."""
    owned = or_(
        and_(vector.c.kind.in_(("images", "joint")), exists().where(image.c.id == vector.c.owner)),
        and_(vector.c.kind == "captions", exists().where(caption.c.id == vector.c.owner)),
    )
    return int(connection.execute(select(func.count()).select_from(vector).where(~owned)).scalar_one())


def images_without_vector(connection: Connection, space_id: int) -> int:
    """Images with a present file in some folder that have no vector in the space."""
    present = exists().where(
        and_(file.c.image == image.c.id, file.c.status == "ok", root.c.id == file.c.root, root.c.path != b"")
    )
    has_vector = exists().where(
        and_(vector.c.space == space_id, vector.c.kind == "images", vector.c.owner == image.c.id)
    )
    return int(connection.execute(select(func.count()).select_from(image).where(present, ~has_vector)).scalar_one())


def chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """As many at a time as one IN (...) takes."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


# --- what applications give -------------------------------------------------------------------------------------

GIVEN = "given:"  # begins the fingerprint of a space whose vectors an application makes


def images_of_keys(connection: Connection, keys: Sequence[bytes]) -> dict[bytes, int]:
    """key -> image, of those keys that are known."""
    found: dict[bytes, int] = {}
    for start in range(0, len(keys), CHUNK):
        some = keys[start : start + CHUNK]
        query = select(file.c.relative, file.c.image).join(root, root.c.id == file.c.root)
        query = query.where(root.c.path == b"", file.c.relative.in_(some), file.c.image.is_not(None))
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found
