"""What applications add by key instead of by folder: pictures and vectors of their own.

In the catalog a key is a place like any other, below the one root that has no path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.write import Seen
from mmsearch.encoders.protocol import Encoder, Space
from mmsearch.errors import PictureError, UsageError
from mmsearch.indexing import facts_of
from mmsearch.searching import open_picture
from mmsearch.settings import Limits

if TYPE_CHECKING:
    from PIL import Image

METADATA = ("caption", "taken_at", "camera", "lens", "latitude", "longitude")
VECTORS_PER_COMMIT = 10_000


def add(
    catalog: Catalog,
    encoder: Encoder,
    key: str,
    content: bytes | Image.Image | NDArray[np.uint8],
    metadata: Mapping[str, object],
    limits: Limits,
) -> int:
    """See `Engine.add`."""
    place = _key(key)
    captions, given = _checked(metadata)
    facts, picture, data = _read(content, encoder.image_size, limits)
    sha256 = hashlib.sha256(data).digest()
    vector = encoder.encode_images([encoder.prepare(picture)])[0]
    texts = dict(zip(captions, encoder.encode_texts(captions), strict=True))
    with catalog.writing() as connection:
        space = write.add_space(connection, *_fields(encoder.space))
        known = read.keyed_image(connection, place)
        seen = Seen(
            root=write.add_root(connection, b"", None),
            relative=place,
            size=len(data),
            mtime_ns=0,
            file=None if known is None else known[0],
            sha256=sha256,
            facts={**facts, **given},
            vector=vector,
            captions={"given": captions},
        )
        write.record(connection, space, [seen], texts)
        found = read.keyed_image(connection, place)
    assert found is not None and found[1] is not None
    return found[1]


def add_vectors(catalog: Catalog, space: Space | str, keys: Sequence[str], vectors: NDArray[np.float32]) -> int:
    """See `Engine.add_vectors`. space: an encoder's, or the name of one of the application's own."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True) if rows.ndim == 2 else np.zeros(0)
    if rows.ndim != 2 or len(rows) != len(keys) or not rows.shape[1]:
        raise UsageError(f"{len(keys)} keys need vectors of shape ({len(keys)}, dimension), not {rows.shape}.")
    if not np.isfinite(rows).all() or not (lengths > 0).all():
        raise UsageError("Vectors must be finite and not zero.")
    if len(set(keys)) != len(keys):
        raise UsageError("Each key may be given once.")
    if isinstance(space, str):
        space = Space(space, "given:" + hashlib.sha256(space.encode()).hexdigest(), rows.shape[1])
    rows = (rows / lengths).astype(np.float32)
    for start in range(0, len(keys), VECTORS_PER_COMMIT):
        part = slice(start, start + VECTORS_PER_COMMIT)
        with catalog.writing() as connection:
            identity = write.add_space(connection, *_fields(space))
            stored = next(one for one in read.spaces(connection) if one.id == identity)
            if stored.dimension != rows.shape[1]:
                raise UsageError(f"Vectors of {space.name} have {stored.dimension} numbers, not {rows.shape[1]}.")
            root = write.add_root(connection, b"", None)
            owners = [write.image_for_key(connection, root, _key(key)) for key in keys[part]]
            write.replace_vectors(connection, identity, list(zip(owners, rows[part], strict=True)))
    return len(keys)


def remove(catalog: Catalog, keys: Sequence[str]) -> int:
    """See `Engine.remove`."""
    with catalog.writing() as connection:
        found = [read.keyed_image(connection, _key(key)) for key in dict.fromkeys(keys)]
        files = [one[0] for one in found if one is not None]
        write.drop_files(connection, files)
    return len(files)


def _key(key: str) -> bytes:
    if not key:
        raise UsageError("A key must not be empty.")
    return os.fsencode(key)


def _checked(metadata: Mapping[str, object]) -> tuple[list[str], dict[str, Any]]:
    """-> captions, columns of `image`."""
    unknown = [name for name in metadata if name not in METADATA]
    if unknown:
        raise UsageError(f"Metadata {', '.join(unknown)} is not known; valid are: {', '.join(METADATA)}.")
    caption = metadata.get("caption", ())
    texts = [caption] if isinstance(caption, str) else list(caption) if isinstance(caption, Sequence) else None
    if texts is None or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UsageError("The metadata `caption` must be a text or a sequence of texts, none of them empty.")
    return texts, {name: value for name, value in metadata.items() if name != "caption" and value is not None}


def _read(
    content: bytes | Image.Image | NDArray[np.uint8], target: int, limits: Limits
) -> tuple[dict[str, Any], Image.Image, bytes]:
    """-> facts, picture, the bytes whose hash is its identity (for what has no file: its size and pixels)."""
    from mmsearch.decode import decode

    if isinstance(content, bytes):
        try:
            decoded = decode(content, target=target, limits=limits)
        except PictureError as error:
            raise UsageError(f"Cannot use the picture: {error}.") from error
        return facts_of(decoded), decoded.picture, content
    size = content.shape[1::-1] if isinstance(content, np.ndarray) else content.size
    pixels = np.asarray(content)
    picture = open_picture(content, target, limits)
    identity = repr((pixels.shape, pixels.dtype.str)).encode() + np.ascontiguousarray(pixels).tobytes()
    return {"width": int(size[0]), "height": int(size[1])}, picture, identity


def _fields(space: Space) -> tuple[str, str, int, str]:
    return space.name, space.fingerprint, space.dimension, "ready"
