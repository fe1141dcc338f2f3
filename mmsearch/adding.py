"""What applications add by key instead of by folder: pictures and vectors of their own.

In the catalog a key is a place like any other, below the one root that has no path.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sqlalchemy import Connection

from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.write import Seen
from mmsearch.composing import FULL_SIZE, open_picture
from mmsearch.decode import decode, to_rgb
from mmsearch.encoders.protocol import Encoder, Space
from mmsearch.errors import PictureError, UsageError
from mmsearch.indexing import facts_of, perceptual_hash
from mmsearch.joining import join_images
from mmsearch.settings import Limits

METADATA = ("caption", "taken_at", "camera", "lens", "latitude", "longitude")
DEGREES = {"latitude": 90, "longitude": 180}
VECTORS_PER_COMMIT = 10_000


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that was handed over. facts: columns of `image`. upright: what the encoder is to prepare."""

    sha256: bytes
    size: int
    facts: dict[str, Any]
    descriptions: tuple[str, ...]
    upright: Image.Image


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
    picture = _read(content, encoder.image_size, limits)
    vector = _encoded(encoder, picture.upright)
    wanted = list(dict.fromkeys([*(captions or ()), *picture.descriptions]))
    texts = dict(zip(wanted, encoder.encode_texts(wanted), strict=True))
    with catalog.writing() as connection:
        space = write.add_space(connection, *_fields(encoder.space))
        known = read.keyed_image(connection, place)
        before = None if known is None else known[1]
        same = read.image_of(connection, picture.sha256, space)
        seen = Seen(
            root=write.add_root(connection, b"", None),
            relative=place,
            size=picture.size,
            mtime_ns=0,
            file=None if known is None else known[0],
            sha256=picture.sha256,
            facts=picture.facts,
            vector=vector,
            more_captions={"embedded": picture.descriptions},
        )
        if captions is not None:
            again = same is not None and same[0] == before
            (seen.captions if again else seen.more_captions)["given"] = captions
        write.record(connection, space, [seen], texts)
        now = read.keyed_image(connection, place)
        assert now is not None and now[1] is not None
        if given:
            write.set_facts(connection, now[1], given)
        if before not in (None, now[1]):
            _leave(connection, space, before, now[1], keep_captions=captions is None)
        join_images(connection, space, [now[1]])
    return now[1]


def add_vectors(catalog: Catalog, space: Space | str, keys: Sequence[str], vectors: ArrayLike) -> int:
    """See `Engine.add_vectors`. space: an encoder's, or the name of one of the application's own."""
    places = _keys(keys)
    rows = _unit_rows(vectors, len(places))
    if len(set(places)) != len(places):
        raise UsageError("Each key may be given once.")
    if not isinstance(space, Space):
        name = _text("name of a space", space)
        space = Space(name, read.GIVEN + hashlib.sha256(name.encode()).hexdigest(), rows.shape[1])
    with catalog.reading() as connection:
        _check_owners(read.images_of_keys(connection, places), places, rows)
    for start in range(0, len(places), VECTORS_PER_COMMIT):
        part = slice(start, start + VECTORS_PER_COMMIT)
        with catalog.writing() as connection:
            identity = write.add_space(connection, *_fields(space))
            stored = next(one for one in read.spaces(connection) if one.id == identity)
            if stored.dimension != rows.shape[1]:
                raise UsageError(f"Vectors of {space.name} have {stored.dimension} numbers, not {rows.shape[1]}.")
            root = write.add_root(connection, b"", None)
            owners = write.images_for_keys(connection, root, places[part])
            write.replace_vectors(connection, identity, list(zip(owners, rows[part], strict=True)))
            join_images(connection, identity, owners)
    return len(places)


def remove(catalog: Catalog, keys: Sequence[str]) -> int:
    """See `Engine.remove`."""
    places = _keys(keys)
    with catalog.writing() as connection:
        found = [read.keyed_image(connection, place) for place in dict.fromkeys(places)]
        files = [one[0] for one in found if one is not None]
        write.drop_files(connection, files)
    return len(files)


def _leave(connection: Connection, space: int, old: int, new: int, *, keep_captions: bool) -> None:
    """A key that held image `old` holds `new` from now on: what belongs to the key goes along, if `old` lies nowhere
    else, and the rest of `old` goes."""
    own = [one.id for one in read.spaces(connection) if one.fingerprint.startswith(read.GIVEN)]
    write.move_vectors(connection, own, old, new)
    if not keep_captions and not read.places(connection, old):
        write.replace_captions(connection, space, old, "given", [], {})
    write.settle(connection, [old])


# --- what may come in -------------------------------------------------------------------------------------------


def _keys(keys: Sequence[str]) -> list[bytes]:
    """A single key may stand alone."""
    return [_key(key) for key in ([keys] if isinstance(keys, str) else keys)]


def _key(key: str) -> bytes:
    if not isinstance(key, str):
        raise UsageError(f"A key is a text, not {type(key).__name__}.")
    if not key:
        raise UsageError("A key must not be empty.")
    try:
        return os.fsencode(key)
    except UnicodeEncodeError as error:
        raise UsageError(f"The key {key!a} holds half a character, which cannot be stored.") from error


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"The {name} must be a text, not {type(value).__name__}.")
    if not value.strip():
        raise UsageError(f"The {name} must not be empty.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"The {name} {value[:80]!a} holds half a character, which cannot be stored.") from error
    return value


def _checked(metadata: Mapping[str, object]) -> tuple[list[str] | None, dict[str, Any]]:
    """-> captions (None where there are none given), columns of `image`. None stands for what is not given."""
    if not isinstance(metadata, Mapping):
        raise UsageError(f"Metadata are given by name, as in {{'camera': 'Acme'}}, not as {type(metadata).__name__}.")
    unknown = [str(name) for name in metadata if name not in METADATA]
    if unknown:
        raise UsageError(f"Metadata {', '.join(unknown)} is not known; valid are: {', '.join(METADATA)}.")
    columns = {name: value for name, value in metadata.items() if value is not None}
    captions = columns.pop("caption", None)
    if isinstance(captions, str):
        captions = [captions]
    if captions is not None and (not isinstance(captions, Sequence) or isinstance(captions, bytes)):
        raise UsageError("The metadata `caption` must be a text or a sequence of texts.")
    texts = None if captions is None else [_text("metadata `caption`", text) for text in captions]
    return texts, {name: _column(name, value) for name, value in columns.items()}


def _column(name: str, value: object) -> object:
    """A piece of metadata as the catalog keeps it. UsageError where it is not what its name says."""
    if name == "taken_at":
        if not isinstance(value, datetime):
            raise UsageError(f"The metadata `taken_at` must be a datetime, not {type(value).__name__}.")
        return value.replace(tzinfo=None)
    if name not in DEGREES:
        return _text(f"metadata `{name}`", value)
    degrees = float(value) if isinstance(value, Real) else math.nan
    if not abs(degrees) <= DEGREES[name]:
        raise UsageError(
            f"The metadata `{name}` must be degrees from -{DEGREES[name]} to {DEGREES[name]}, not {value!r}."
        )
    return degrees


def _read(content: object, target: int, limits: Limits) -> _Picture:
    """A picture in any form. Its identity is the hash of the file's bytes; where there is no file, of what is seen."""
    if isinstance(content, bytes):
        try:
            decoded = decode(content, target=target, limits=limits)
        except PictureError as error:
            raise UsageError(f"Cannot use the picture: {error}.") from error
        sha256 = hashlib.sha256(content).digest()
        return _Picture(sha256, len(content), facts_of(decoded), decoded.metadata.descriptions, decoded.picture)
    if not isinstance(content, Image.Image | np.ndarray):
        hint = "; read the file first" if isinstance(content, str | os.PathLike) else ""
        raise UsageError(
            "A picture is the bytes of a file, a Pillow picture or an array (height, width, 3) of uint8, "
            f"not {type(content).__name__}{hint}."
        )
    width, height = content.size if isinstance(content, Image.Image) else (*content.shape[1::-1], 0, 0)[:2]
    if width * height > limits.max_megapixels * 1e6:
        raise UsageError(
            f"Cannot use the picture: {width} x {height} pixels are {width * height / 1e6:,.1f} megapixels; the limit "
            f"is {limits.max_megapixels:g} megapixels a picture."
        )
    seen = open_picture(content, FULL_SIZE, limits)
    pixels = seen.tobytes()
    identity = hashlib.sha256(b"mmsearch pixels %d x %d\0" % seen.size)
    identity.update(pixels)
    upright = to_rgb(seen, target=target)
    facts = {"width": seen.width, "height": seen.height, "perceptual_hash": perceptual_hash(upright)}
    return _Picture(identity.digest(), len(pixels), facts, (), upright)


def _encoded(encoder: Encoder, picture: Image.Image) -> NDArray[np.float32]:
    try:
        prepared = encoder.prepare(picture)
    except Exception as error:  # whatever an encoder has against one picture
        raise UsageError(f"The encoder {encoder.space.name} cannot use the picture: {error}.") from error
    vector: NDArray[np.float32] = encoder.encode_images([prepared])[0]
    if not np.isfinite(vector).all():
        raise UsageError(f"The encoder {encoder.space.name} cannot use the picture: its numbers are not finite.")
    return vector


def _unit_rows(vectors: ArrayLike, count: int) -> NDArray[np.float32]:
    """(count, dimension) numbers of any length -> float32 rows of unit length."""
    try:
        given = np.asarray(vectors)
    except ValueError as error:
        raise UsageError(f"Vectors must be rows of one length: {error}.") from error
    if given.dtype.kind not in "fiu":
        raise UsageError(f"Vectors must be numbers, not {given.dtype}.")
    if given.ndim != 2 or len(given) != count or not given.shape[1]:
        raise UsageError(f"{count} keys need vectors of shape ({count}, dimension), not {given.shape}.")
    rows = np.empty(given.shape, np.float32)
    for start in range(0, count, VECTORS_PER_COMMIT):
        wide = given[start : start + VECTORS_PER_COMMIT].astype(np.float64)
        largest = np.abs(wide).max(axis=1, keepdims=True)
        if not np.isfinite(largest).all() or not (largest > 0).all():
            raise UsageError("Vectors must be finite and not zero.")
        wide /= largest  # the squares of very large or small numbers would overflow or vanish
        rows[start : start + len(wide)] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return rows


def _check_owners(images: Mapping[bytes, int], places: Sequence[bytes], rows: NDArray[np.float32]) -> None:
    """An image has one vector in a space, whatever the number of its keys."""
    first: dict[int, int] = {}
    for number, place in enumerate(places):
        if place not in images:
            continue
        other = first.setdefault(images[place], number)
        if not np.array_equal(rows[other], rows[number]):
            one, two = os.fsdecode(places[other]), os.fsdecode(place)
            raise UsageError(f"The keys {one!r} and {two!r} are of one image, which can have one vector, not two.")


def _fields(space: Space) -> tuple[str, str, int, str]:
    return space.name, space.fingerprint, space.dimension, "ready"
