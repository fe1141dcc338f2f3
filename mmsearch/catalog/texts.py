"""Words: the full text of images and captions (SQLite FTS5), kept up to date by every write transaction.

Triggers note the images whose captions, names, tags or inner text change (`image_fts_stale`); `refresh` writes their
rows anew before the transaction ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, cast, delete, func, insert, literal, literal_column, select

from mmsearch.catalog.read import has_file
from mmsearch.catalog.tables import (
    caption,
    caption_fts,
    file,
    image,
    image_fts,
    image_fts_stale,
    image_tag,
    picture_text,
    root,
    tag,
)
from mmsearch.filters import Node

# How much a word counts by where it stands: what people wrote says more than where a file happens to lie.
COLUMN_WEIGHTS = (1.0, 0.6, 1.0, 0.4)  # captions, names, tags, inside


def _lines(column: ColumnElement[Any]) -> ColumnElement[str]:
    return func.group_concat(column, "\n")


_stale = select(image_fts_stale.c.image)
_FORGET = delete(image_fts).where(image_fts.c.rowid.in_(_stale))
_WRITE = insert(image_fts).from_select(
    ["rowid", "captions", "names", "tags", "inside"],
    select(
        image.c.id,
        select(_lines(caption.c.text)).where(caption.c.image == image.c.id).scalar_subquery(),
        select(_lines(cast(func.file_name(root.c.path), Text) + "/" + cast(file.c.relative, Text)))
        .where(file.c.image == image.c.id, file.c.status == "ok", root.c.id == file.c.root)
        .scalar_subquery(),
        select(_lines(tag.c.name))
        .where(tag.c.id.in_(select(image_tag.c.tag).where(image_tag.c.image == image.c.id)))
        .scalar_subquery(),
        select(picture_text.c.text).where(picture_text.c.image == image.c.id).scalar_subquery(),
    ).where(image.c.id.in_(_stale)),
)
_DONE = delete(image_fts_stale)


def refresh(connection: Connection) -> None:
    """Write the full text of images that changed in this transaction."""
    if connection.execute(_stale.limit(1)).first() is not None:
        for step in (_FORGET, _WRITE, _DONE):
            connection.execute(step)


def ranked(connection: Connection, kind: str, match: str, filters: Node | None, limit: int) -> list[tuple[int, float]]:
    """(image or caption id, BM25, higher is better) of the best matches, best first, equal ones by sha256: those whose
    image has a present file that satisfies the filters.

    match: an FTS5 expression that `words.expression` made."""
    weights: tuple[float, ...]
    if kind == "images":
        table, weights, owner = image_fts, COLUMN_WEIGHTS, image_fts.c.rowid
        joined = table.join(image, image.c.id == owner)
    else:
        table, weights, owner = caption_fts, (), caption.c.image
        joined = table.join(caption, caption.c.id == table.c.rowid).join(image, image.c.id == owner)
    score = -func.bm25(literal_column(table.name), *weights)
    query = select(table.c.rowid, score).select_from(joined)
    query = query.where(literal_column(table.name).op("MATCH")(match), has_file(owner, filters))
    order = [score.desc(), image.c.sha256, *([caption.c.text] if kind == "captions" else [])]
    rows = connection.execute(query.order_by(*order).limit(limit))
    return [(row[0], row[1]) for row in rows]


def matching(connection: Connection, kind: str, match: str, ids: Sequence[int]) -> set[int]:
    """Those of some images or captions that an FTS5 expression finds."""
    table = image_fts if kind == "images" else caption_fts
    query = select(table.c.rowid).where(literal_column(table.name).op("MATCH")(match), table.c.rowid.in_(ids))
    return set(connection.execute(query).scalars())


def images_without_text(connection: Connection, read_by: str, above: int, limit: int) -> Sequence[int]:
    """Ids above `above` of images with a present file whose inner text this reader has not read yet, ascending."""
    present = select(file.c.image).where(file.c.image == image.c.id, file.c.status == "ok").exists()
    known = select(picture_text.c.image).where(picture_text.c.image == image.c.id, picture_text.c.read_by == read_by)
    query = select(image.c.id).where(image.c.id > above, present, ~known.exists()).order_by(image.c.id).limit(limit)
    return connection.execute(query).scalars().all()


def put_picture_text(connection: Connection, image_id: int, text: str, read_by: str) -> None:
    """The text inside an image; "" where there is none. An image that went meanwhile is passed over."""
    connection.execute(delete(picture_text).where(picture_text.c.image == image_id))
    there = select(image.c.id, literal(text), literal(read_by)).where(image.c.id == image_id)
    connection.execute(insert(picture_text).from_select(["image", "text", "read_by"], there))


def hashes(connection: Connection, images: Sequence[int]) -> dict[int, bytes]:
    """image -> sha256 of its content, for few images."""
    query = select(image.c.id, image.c.sha256).where(image.c.id.in_(images))
    return {row[0]: row[1] for row in connection.execute(query)}
