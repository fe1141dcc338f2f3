"""What the catalog knows about one image, for those who look at it."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, select

from mmsearch.catalog.tables import caption, file, image, image_tag, picture_text, root, tag
from mmsearch.types import GivenTag, ImageDetails, ImageFile, SourcedCaption


def details(connection: Connection, image_id: int) -> ImageDetails | None:
    """None for an id that is not known."""
    row = connection.execute(select(image).where(image.c.id == image_id)).first()
    if row is None:
        return None
    files, key = _files(connection, image_id)
    texts = select(caption.c.text, caption.c.source).where(caption.c.image == image_id).order_by(caption.c.id)
    given = select(tag.c.name, image_tag.c.source, image_tag.c.score).join(tag, tag.c.id == image_tag.c.tag)
    given = given.where(image_tag.c.image == image_id).order_by(tag.c.name, image_tag.c.source)
    inside = connection.execute(select(picture_text.c.text).where(picture_text.c.image == image_id)).scalar()
    return ImageDetails(
        id=row.id,
        sha256=row.sha256.hex(),
        width=row.width,
        height=row.height,
        format=row.format,
        taken_at=row.taken_at,
        camera=row.camera,
        lens=row.lens,
        latitude=row.latitude,
        longitude=row.longitude,
        files=files,
        captions=tuple(SourcedCaption(*one) for one in connection.execute(texts)),
        tags=tuple(GivenTag(*one) for one in connection.execute(given)),
        text=inside or None,
        key=key,
    )


def _files(connection: Connection, image_id: int) -> tuple[tuple[ImageFile, ...], str | None]:
    """The places of an image in folders, those present first, and the application's key."""
    query = select(root.c.path, file.c.relative, file.c.status, file.c.size, file.c.mtime_ns)
    query = query.join(root, root.c.id == file.c.root).where(file.c.image == image_id)
    files, key = [], None
    for place, relative, status, size, mtime_ns in connection.execute(query.order_by(root.c.id, file.c.relative)):
        if place:
            names = Path(os.fsdecode(place)), Path(os.fsdecode(relative))
            files.append(ImageFile(*names, present=status == "ok", size_bytes=size, mtime_ns=mtime_ns))
        else:
            key = key or os.fsdecode(relative)
    return tuple(sorted(files, key=lambda one: not one.present)), key
