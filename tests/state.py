"""What a collection holds, without ids, times and run records: two equal states hold the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsearch.catalog.catalog import Catalog

QUERIES = {
    "roots": "SELECT path FROM root",
    "files": """SELECT root.path, relative, size, mtime_ns, sidecar, status, error, hex(image.sha256)
                FROM file JOIN root ON root.id = file.root LEFT JOIN image ON image.id = file.image""",
    "images": """SELECT hex(sha256), width, height, format, taken_at, camera, lens, latitude, longitude,
                 hex(perceptual_hash) FROM image""",
    "captions": "SELECT hex(image.sha256), source, text FROM caption JOIN image ON image.id = caption.image",
    "vectors": """SELECT fingerprint, kind, hex(coalesce(i.sha256, c.sha256)), caption.text, hex(data), crc
                  FROM vector JOIN space ON space.id = vector.space
                  LEFT JOIN image i ON kind IN ('images', 'joint') AND i.id = owner
                  LEFT JOIN caption ON kind = 'captions' AND caption.id = owner
                  LEFT JOIN image c ON c.id = caption.image""",
    "spaces": "SELECT encoder, fingerprint, dimension, state, current FROM space",
    "words": "SELECT count(*) FROM caption_fts WHERE caption_fts MATCH 'a OR picture OR red'",
}


def state(collection: Path) -> dict[str, list[Any]]:
    """Every table that matters, sorted."""
    catalog = Catalog(collection, create=False)
    try:
        with catalog.reading() as connection:
            return {
                name: sorted((tuple(row) for row in connection.exec_driver_sql(query)), key=repr)
                for name, query in QUERIES.items()
            }
    finally:
        catalog.close()
