"""What lies where: a path -> what the catalog knows of the file."""

from __future__ import annotations

import os

from sqlalchemy import Connection, select

from mmsearch.catalog import read
from mmsearch.catalog.tables import file


def file_at(connection: Connection, path: bytes) -> tuple[int | None, str, str | None] | None:
    """(image, status, error) of the file at an absolute path, in the innermost root around it; None if not known."""
    for root in sorted(read.roots(connection), key=lambda one: -len(one.path)):
        if path.startswith(root.path.rstrip(b"/") + b"/"):
            relative = os.path.relpath(path, root.path)
            query = select(file.c.image, file.c.status, file.c.error)
            row = connection.execute(query.where(file.c.root == root.id, file.c.relative == relative)).first()
            if row is not None:
                return row[0], row[1], row[2]
    return None
