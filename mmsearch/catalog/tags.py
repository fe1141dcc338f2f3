"""Tags of images: who gave which, and which images lie at a path. All SQL of tagging.

A tag is given by `zero-shot` classification, with its probability as the score, or by a `person`; both may give the
same one. The full text of an image follows by triggers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, exists, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from mmsearch.catalog.read import CHUNK, existing_images
from mmsearch.catalog.tables import file, image, image_tag, tag, vector

ZERO_SHOT, PERSON = "zero-shot", "person"

_present = exists().where(file.c.image == image.c.id, file.c.status == "ok")

# --- which images -------------------------------------------------------------------------------------------------


def present_images(connection: Connection) -> list[int]:
    """Ids of all images with a present file, ascending."""
    return list(connection.execute(select(image.c.id).where(_present).order_by(image.c.id)).scalars())


def images_below(connection: Connection, root_id: int, under: bytes) -> list[int]:
    """Images of the present files of a root, or of its subfolder `under`."""
    query = select(file.c.image).where(file.c.root == root_id, file.c.status == "ok").distinct()
    if under:  # b"0" follows b"/": everything that begins with `under/`
        query = query.where(file.c.relative >= under + b"/", file.c.relative < under + b"0")
    return list(connection.execute(query).scalars())


def vectors_of(
    connection: Connection, space_id: int, dimension: int, images: Sequence[int]
) -> tuple[list[int], NDArray[np.float32]]:
    """Of these images, those that have a vector in the space, ascending, and (n, dimension) unit-length rows."""
    found: dict[int, bytes] = {}
    for start in range(0, len(images), CHUNK):
        query = select(vector.c.owner, vector.c.data).where(vector.c.space == space_id, vector.c.kind == "images")
        rows = connection.execute(query.where(vector.c.owner.in_(images[start : start + CHUNK])))
        found.update((row[0], row[1]) for row in rows)
    ids = sorted(found)
    data = np.frombuffer(b"".join(found[one] for one in ids), "<f2").astype(np.float32)
    wide = data.reshape(len(ids), dimension)
    return ids, wide / np.linalg.norm(wide, axis=1, keepdims=True)


# --- reading tags -------------------------------------------------------------------------------------------------


def counts(connection: Connection) -> dict[str, int]:
    """tag -> how many images with a present file have it, by name; those that none has are left out."""
    tagged = select(image_tag.c.tag, image_tag.c.image).join(image, image.c.id == image_tag.c.image)
    pairs = tagged.where(_present).distinct().subquery()
    query = select(tag.c.name, func.count()).join(pairs, pairs.c.tag == tag.c.id).group_by(tag.c.id)
    return {row[0]: row[1] for row in connection.execute(query.order_by(tag.c.name))}


def names(connection: Connection) -> list[str]:
    """Of the tags that an image has, whether its files are present or not."""
    used = exists().where(image_tag.c.tag == tag.c.id)
    return list(connection.execute(select(tag.c.name).where(used).order_by(tag.c.name)).scalars())


def given_by_machine(
    connection: Connection, images: Sequence[int], tags: Collection[int]
) -> dict[tuple[int, int], float]:
    """(image, tag) -> score of what zero-shot classification gave these images, of these tags."""
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(images), CHUNK):
        query = select(image_tag.c.image, image_tag.c.tag, image_tag.c.score).where(image_tag.c.source == ZERO_SHOT)
        rows = connection.execute(query.where(image_tag.c.image.in_(images[start : start + CHUNK])))
        found.update(((row[0], row[1]), row[2] or 0.0) for row in rows if row[1] in tags)
    return found


# --- writing tags -------------------------------------------------------------------------------------------------


def known_spelling(connection: Connection, wanted: Iterable[str]) -> dict[str, str]:
    """name -> the name as it is kept already, whatever its capitals; else as it is given."""
    kept = {name.casefold(): name for name in connection.execute(select(tag.c.name).order_by(tag.c.id)).scalars()}
    return {name: kept.setdefault(name.casefold(), name) for name in wanted}


def ids(connection: Connection, wanted: Iterable[str]) -> dict[str, int]:
    """name -> tag, of those that are known by exactly this name."""
    found: dict[str, int] = {}
    named = list(wanted)
    for start in range(0, len(named), CHUNK):
        query = select(tag.c.name, tag.c.id).where(tag.c.name.in_(named[start : start + CHUNK]))
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def make(connection: Connection, wanted: Sequence[str]) -> dict[str, int]:
    """name -> tag; made where it is new."""
    if wanted:
        connection.execute(upsert(tag).on_conflict_do_nothing(), [{"name": name} for name in wanted])
    return ids(connection, wanted)


def set_by_machine(
    connection: Connection, scores: Mapping[tuple[int, int], float], gone: Collection[tuple[int, int]]
) -> None:
    """Zero-shot classification gives (image, tag) with these probabilities, and no longer those that are gone.
    Images that were removed meanwhile are passed over."""
    _drop(connection, ZERO_SHOT, gone)
    there = existing_images(connection, list({one for one, _ in scores}))
    rows = [
        {"image": one, "tag": other, "source": ZERO_SHOT, "score": score}
        for (one, other), score in scores.items()
        if one in there
    ]
    if rows:
        change = upsert(image_tag)
        keys = ["image", "tag", "source"]
        connection.execute(
            change.on_conflict_do_update(index_elements=keys, set_={"score": change.excluded.score}), rows
        )


def give(connection: Connection, images: Sequence[int], tags: Sequence[int]) -> int:
    """A person gives images tags. Returns how many of these the images did not have from a person."""
    before: set[tuple[int, int]] = set()
    for start in range(0, len(images), CHUNK):
        query = select(image_tag.c.image, image_tag.c.tag).where(image_tag.c.source == PERSON)
        some = image_tag.c.image.in_(images[start : start + CHUNK])
        before.update((row[0], row[1]) for row in connection.execute(query.where(some, image_tag.c.tag.in_(tags))))
    there = existing_images(connection, images)
    new = [(one, other) for one in images for other in tags if one in there and (one, other) not in before]
    if new:
        rows = [{"image": one, "tag": other, "source": PERSON} for one, other in new]
        connection.execute(upsert(image_tag).on_conflict_do_nothing(), rows)
    return len(new)


def take(connection: Connection, images: Sequence[int], tags: Sequence[int]) -> int:
    """A person takes tags away, whoever gave them. Returns how many (image, tag) there were."""
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(images), CHUNK):
        some = images[start : start + CHUNK]
        mine = (image_tag.c.image.in_(some), image_tag.c.tag.in_(tags))
        pairs.update((r[0], r[1]) for r in connection.execute(select(image_tag.c.image, image_tag.c.tag).where(*mine)))
        connection.execute(delete(image_tag).where(*mine))
    return len(pairs)


def _drop(connection: Connection, source: str, pairs: Collection[tuple[int, int]]) -> None:
    by_tag: dict[int, list[int]] = {}
    for one, other in pairs:
        by_tag.setdefault(other, []).append(one)
    for other, images in by_tag.items():
        for start in range(0, len(images), CHUNK):
            some = image_tag.c.image.in_(images[start : start + CHUNK])
            connection.execute(delete(image_tag).where(image_tag.c.source == source, image_tag.c.tag == other, some))
