"""Every change of the catalog. Each function takes the connection of a write transaction and leaves it consistent:
whoever deletes an owner deletes its vectors, and an image that lies nowhere goes with its last file.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from mmsearch.catalog.tables import caption, file, image, image_tag, root, run, space, vector

# Captions and tags by these hands belong to the place, not to the content: they stay when a file is edited.
LASTING_CAPTIONS = ("table", "given")


@dataclass(slots=True)
class Seen:
    """What an index run or an application learned of one place.

    file: id of its row, None for a new place. moved_from: id of a row whose place is gone and becomes this one.
    error: why it failed, and tried_with: under which conditions; what follows is then passed over.
    image: its id, instead of `sha256`, when only captions changed.
    facts: columns of `image` for content that may be new. vector: (dimension,) where the space lacks one.
    captions: source -> texts that replace those of this source; sources that are not named stay.
    more_captions: source -> texts that are added to those of this source.
    """

    root: int
    relative: bytes
    size: int
    mtime_ns: int
    sidecar: str | None = None
    file: int | None = None
    moved_from: int | None = None
    error: str | None = None
    tried_with: str | None = None
    sha256: bytes | None = None
    image: int | None = None
    facts: Mapping[str, Any] | None = None
    vector: NDArray[np.float32] | None = None
    captions: dict[str, Sequence[str]] = field(default_factory=dict)
    more_captions: dict[str, Sequence[str]] = field(default_factory=dict)

    def all_captions(self) -> Iterator[str]:
        for texts in (*self.captions.values(), *self.more_captions.values()):
            yield from texts


def record(
    connection: Connection, space_id: int, seen: Iterable[Seen], texts: Mapping[str, NDArray[np.float32]]
) -> int:
    """Commit what was seen: files, images, captions and their vectors. texts: caption -> vector, for new ones.

    Returns how many captions were added. One whose content was removed meanwhile is left for the next run.
    """
    added = 0
    for one in seen:
        if one.error is not None:
            _put_file(connection, one, {"status": "failed", "error": one.error, "tried_with": one.tried_with})
            continue
        image_id = _put_image(connection, one)
        if image_id is None:
            continue
        before = _put_file(connection, one, {"status": "ok", "error": None, "tried_with": None, "image": image_id})
        if one.vector is not None:
            put_vectors(connection, space_id, "images", [(image_id, one.vector)])
        if before is not None and before != image_id:
            _hand_over(connection, before, image_id)
            drop_lonely_images(connection, [before])
        for source, wanted in one.captions.items():
            _drop_other_captions(connection, image_id, source, wanted)
            added += _add_captions(connection, space_id, image_id, source, wanted, texts)
        for source, more in one.more_captions.items():
            added += _add_captions(connection, space_id, image_id, source, more, texts)
    return added


def _put_image(connection: Connection, one: Seen) -> int | None:
    if one.facts is not None:
        connection.execute(upsert(image).values(sha256=one.sha256, **one.facts).on_conflict_do_nothing())
    same = image.c.id == one.image if one.image is not None else image.c.sha256 == one.sha256
    found = connection.execute(select(image.c.id).where(same)).scalar()
    return None if found is None else int(found)


def _put_file(connection: Connection, one: Seen, state: Mapping[str, Any]) -> int | None:
    """Returns the image that this place held before."""
    values = {
        "root": one.root,
        "relative": one.relative,
        "size": one.size,
        "mtime_ns": one.mtime_ns,
        "sidecar": one.sidecar,
        **state,
    }
    row = one.file if one.file is not None else one.moved_from
    if row is None:
        connection.execute(insert(file).values(**values))
        return None
    before = connection.execute(select(file.c.image).where(file.c.id == row)).scalar()
    connection.execute(update(file).where(file.c.id == row).values(**values))
    return before


def _drop_other_captions(connection: Connection, image_id: int, source: str, wanted: Sequence[str]) -> None:
    stored = select(caption.c.id, caption.c.text).where(caption.c.image == image_id, caption.c.source == source)
    drop_captions(connection, [row[0] for row in connection.execute(stored) if row[1] not in wanted])


def _add_captions(
    connection: Connection,
    space_id: int,
    image_id: int,
    source: str,
    wanted: Sequence[str],
    texts: Mapping[str, NDArray[np.float32]],
) -> int:
    """Returns how many were not there yet."""
    added = 0
    for text in dict.fromkeys(wanted):
        values = {"image": image_id, "text": text, "source": source}
        statement = upsert(caption).values(values).on_conflict_do_nothing().returning(caption.c.id)
        made = connection.execute(statement).scalar()
        if made is not None:
            put_vectors(connection, space_id, "captions", [(made, texts[text])])
            added += 1
    return added


def _hand_over(connection: Connection, old: int, new: int) -> None:
    """The file of image `old` was edited into image `new`: what people gave it goes along, if it lies nowhere else."""
    if connection.execute(select(file.c.id).where(file.c.image == old).limit(1)).first() is not None:
        return
    for table, column in (
        (caption, caption.c.source.in_(LASTING_CAPTIONS)),
        (image_tag, image_tag.c.source == "person"),
    ):
        statement = update(table).prefix_with("OR IGNORE").where(table.c.image == old, column).values(image=new)
        connection.execute(statement)


# --- vectors ----------------------------------------------------------------------------------------------------


def put_vectors(
    connection: Connection, space_id: int, kind: str, owned: Iterable[tuple[int, NDArray[np.float32]]]
) -> None:
    """Store (owner, unit-length vector) pairs as float16 with their checksum; one that is there already stays."""
    values = []
    for owner, row in owned:
        data = row.astype("<f2").tobytes()
        values.append({"space": space_id, "kind": kind, "owner": owner, "data": data, "crc": zlib.crc32(data)})
    if values:
        connection.execute(upsert(vector).on_conflict_do_nothing(), values)


def replace_vectors(connection: Connection, space_id: int, owned: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
    """As `put_vectors` for images, but new vectors take the place of old ones, under new ids."""
    for owner, _ in owned:
        connection.execute(
            delete(vector).where(vector.c.space == space_id, vector.c.kind == "images", vector.c.owner == owner)
        )
    put_vectors(connection, space_id, "images", owned)


def put_caption_vectors(
    connection: Connection, space_id: int, owned: Iterable[tuple[int, NDArray[np.float32]]]
) -> None:
    """As `put_vectors`, for captions some of which may have gone while they were encoded."""
    pairs = list(owned)
    there = set(connection.execute(select(caption.c.id).where(caption.c.id.in_([p[0] for p in pairs]))).scalars())
    put_vectors(connection, space_id, "captions", [pair for pair in pairs if pair[0] in there])


def drop_captions(connection: Connection, captions: Sequence[int]) -> None:
    """Delete captions with their vectors, in every space."""
    for identity in captions:
        connection.execute(delete(vector).where(vector.c.kind == "captions", vector.c.owner == identity))
        connection.execute(delete(caption).where(caption.c.id == identity))


# --- files that go ----------------------------------------------------------------------------------------------


def set_missing(connection: Connection, files: Iterable[int]) -> None:
    """Files that are gone from a root that is there: they leave results and keep their vectors."""
    values = [{"row": identity} for identity in files]
    if values:
        connection.execute(update(file).where(file.c.id == bindparam("row")).values(status="missing"), values)


def set_present(connection: Connection, files: Iterable[int]) -> None:
    """Missing files that are back with the size and time they had."""
    values = [{"row": identity} for identity in files]
    if values:
        connection.execute(update(file).where(file.c.id == bindparam("row")).values(status="ok"), values)


def drop_files(connection: Connection, files: Sequence[int]) -> None:
    """Delete files, and the images that then lie nowhere."""
    images = []
    for identity in files:
        images.append(connection.execute(select(file.c.image).where(file.c.id == identity)).scalar())
        connection.execute(delete(file).where(file.c.id == identity))
    drop_lonely_images(connection, [one for one in images if one is not None])


def drop_lonely_images(connection: Connection, images: Iterable[int]) -> None:
    """Of these images, delete those without any file, with their captions, tags and vectors."""
    for identity in dict.fromkeys(images):
        if connection.execute(select(file.c.id).where(file.c.image == identity).limit(1)).first() is not None:
            continue
        captions = connection.execute(select(caption.c.id).where(caption.c.image == identity)).scalars().all()
        drop_captions(connection, captions)
        connection.execute(delete(vector).where(vector.c.kind == "images", vector.c.owner == identity))
        connection.execute(delete(image).where(image.c.id == identity))


# --- roots ------------------------------------------------------------------------------------------------------


def image_for_key(connection: Connection, root_id: int, key: bytes) -> int:
    """The image under a key; one without content, known by the key alone, where there is none."""
    found = connection.execute(select(file.c.image).where(file.c.root == root_id, file.c.relative == key)).scalar()
    if found is not None:
        return int(found)
    sha256 = hashlib.sha256(b"mmsearch key\0" + key).digest()
    connection.execute(upsert(image).values(sha256=sha256).on_conflict_do_nothing())
    identity = int(connection.execute(select(image.c.id).where(image.c.sha256 == sha256)).scalar_one())
    connection.execute(insert(file).values(root=root_id, relative=key, size=0, mtime_ns=0, image=identity, status="ok"))
    return identity


def add_root(connection: Connection, path: bytes, device: str | None) -> int:
    """The id of the root at `path`; made if it is new. b"" is the one for keys."""
    connection.execute(upsert(root).values(path=path, added_at=_now(), device=device).on_conflict_do_nothing())
    return int(connection.execute(select(root.c.id).where(root.c.path == path)).scalar_one())


def absorb_root(connection: Connection, inner: int, prefix: bytes, outer: int) -> None:
    """The files of root `inner` become files of `outer`, below `prefix`; `inner` goes."""
    rows = connection.execute(select(file.c.id, file.c.relative).where(file.c.root == inner)).all()
    values = [{"row": row[0], "place": prefix + b"/" + row[1]} for row in rows]
    if values:
        change = update(file).where(file.c.id == bindparam("row"))
        connection.execute(change.values(root=outer, relative=bindparam("place")), values)
    connection.execute(delete(root).where(root.c.id == inner))


def set_root(connection: Connection, root_id: int, *, path: bytes | None = None, device: str | None = None) -> None:
    """Change where a root lies, or what device it is on."""
    values: dict[str, Any] = {} if path is None else {"path": path}
    connection.execute(update(root).where(root.c.id == root_id).values(**values, device=device))


def drop_root(connection: Connection, root_id: int) -> int:
    """Delete a root with its files, and the images that then lie nowhere. Returns how many files it had."""
    files = connection.execute(select(file.c.id).where(file.c.root == root_id)).scalars().all()
    drop_files(connection, files)
    connection.execute(delete(root).where(root.c.id == root_id))
    return len(files)


# --- spaces and runs --------------------------------------------------------------------------------------------


def add_space(connection: Connection, encoder: str, fingerprint: str, dimension: int, state: str) -> int:
    """The id of the space with this fingerprint; made if it is new, in this state, and current if it is the first."""
    first = connection.execute(select(space.c.id).limit(1)).first() is None
    values = {
        "encoder": encoder,
        "fingerprint": fingerprint,
        "dimension": dimension,
        "state": state,
        "current": first,
    }
    connection.execute(upsert(space).values(**values).on_conflict_do_nothing())
    return int(connection.execute(select(space.c.id).where(space.c.fingerprint == fingerprint)).scalar_one())


def set_current(connection: Connection, space_id: int) -> None:
    """The space is whole: queries use it from now on."""
    connection.execute(update(space).values(current=False).where(space.c.current, space.c.id != space_id))
    connection.execute(update(space).values(current=True, state="ready").where(space.c.id == space_id))


def set_generation(connection: Connection, space_id: int, kind: str, name: str) -> None:
    """Name the generation that serves a kind from now on."""
    connection.execute(update(space).where(space.c.id == space_id).values({f"{kind}_generation": name}))


def start_run(connection: Connection, command: str) -> int:
    made = connection.execute(insert(run).values(command=command, started_at=_now()).returning(run.c.id))
    return int(made.scalar_one())


def end_run(connection: Connection, run_id: int, counts: Mapping[str, Any]) -> None:
    connection.execute(update(run).where(run.c.id == run_id).values(ended_at=_now(), counts=dict(counts)))


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
