"""Every change of the catalog. Each function takes the connection of a write transaction and leaves it consistent:
whoever deletes an owner deletes its vectors. Images that lie nowhere go when it is settled that they do.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, case, delete, exists, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from mmsearch.catalog.read import chunks, images_of_keys
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

    def all_captions(self) -> Iterator[tuple[str, str]]:
        """(source, text) of each."""
        for captions in (self.captions, self.more_captions):
            yield from ((source, text) for source, texts in captions.items() for text in texts)


def record(
    connection: Connection, space_id: int, seen: Iterable[Seen], texts: Mapping[str, NDArray[np.float32]]
) -> tuple[int, list[Seen]]:
    """Commit what was seen: files, images, captions and their vectors. texts: caption -> vector, for new ones.

    What a place held before stays until `settle`: a file that comes later in the run may hold it now.
    Returns how many captions were added, and those whose content was removed from the catalog meanwhile.
    """
    added, lost = 0, []
    for one in seen:
        if one.error is not None:
            _put_file(connection, one, {"status": "failed", "error": one.error, "tried_with": one.tried_with})
            continue
        image_id = _put_image(connection, one)
        if image_id is None:
            lost.append(one)
            continue
        _put_file(connection, one, {"status": "ok", "error": None, "tried_with": None, "image": image_id})
        if one.vector is not None:
            put_vectors(connection, space_id, "images", [(image_id, one.vector)])
        for source, wanted in one.captions.items():
            added += replace_captions(connection, space_id, image_id, source, wanted, texts)
        for source, more in one.more_captions.items():
            added += _add_captions(connection, space_id, image_id, source, more, texts)
    return added, lost


def _put_image(connection: Connection, one: Seen) -> int | None:
    if one.facts is not None:
        connection.execute(_NEW_IMAGE, {"sha256": one.sha256, **one.facts})
    if one.image is not None:
        return connection.execute(_IMAGE_BY_ID, {"wanted": one.image}).scalar()
    return connection.execute(_IMAGE_BY_HASH, {"wanted": one.sha256}).scalar()


def _put_file(connection: Connection, one: Seen, state: Mapping[str, Any]) -> None:
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
        connection.execute(_NEW_FILE, values)
        return
    before = connection.execute(_IMAGE_OF_FILE, {"wanted": row}).first()
    if before is not None and "image" in state and before.image not in (None, state["image"]):
        values["edited_from"] = before.image if before.edited_from is None else before.edited_from
    connection.execute(update(file).where(file.c.id == row).values(values))


# Built once: constructing a statement costs more than running it.
_NEW_IMAGE = upsert(image).on_conflict_do_nothing()
_NEW_FILE = insert(file)
_NEW_CAPTION = upsert(caption).on_conflict_do_nothing().returning(caption.c.id)
_NEW_VECTOR = upsert(vector).on_conflict_do_nothing()
_IMAGE_BY_ID = select(image.c.id).where(image.c.id == bindparam("wanted"))
_IMAGE_BY_HASH = select(image.c.id).where(image.c.sha256 == bindparam("wanted"))
_IMAGE_OF_FILE = select(file.c.image, file.c.edited_from).where(file.c.id == bindparam("wanted"))


def replace_captions(
    connection: Connection,
    space_id: int,
    image_id: int,
    source: str,
    wanted: Sequence[str],
    texts: Mapping[str, NDArray[np.float32]],
) -> int:
    """The captions of one source become these. Returns how many were not there yet."""
    stored = select(caption.c.id, caption.c.text).where(caption.c.image == image_id, caption.c.source == source)
    drop_captions(connection, [row[0] for row in connection.execute(stored) if row[1] not in wanted])
    return _add_captions(connection, space_id, image_id, source, wanted, texts)


def _add_captions(
    connection: Connection,
    space_id: int,
    image_id: int,
    source: str,
    wanted: Sequence[str],
    texts: Mapping[str, NDArray[np.float32]],
) -> int:
    added = 0
    for text in dict.fromkeys(wanted):
        made = connection.execute(_NEW_CAPTION, {"image": image_id, "text": text, "source": source}).scalar()
        if made is not None:
            added += 1
            if text in texts:  # else the step for captions without a vector makes one
                put_vectors(connection, space_id, "captions", [(made, texts[text])])
    return added


# --- what is left behind ------------------------------------------------------------------------------------------


def settle(connection: Connection, images: Collection[int] | None = None) -> None:
    """Images that lie nowhere any more go. If a file was edited into another image, what people gave it goes along.

    images: only these; None for all, which only who holds the index lock may ask: during a run, an image may lie
    nowhere until the file that it was renamed to comes up.
    """
    edited = select(file.c.edited_from, file.c.image).where(file.c.edited_from.is_not(None)).order_by(file.c.id)
    pairs = [(row[0], row[1]) for row in connection.execute(edited) if images is None or row[0] in images]
    for old, new in pairs:
        if connection.execute(select(file.c.id).where(file.c.image == old).limit(1)).first() is None:
            for table, given in (
                (caption, caption.c.source.in_(LASTING_CAPTIONS)),
                (image_tag, image_tag.c.source == "person"),
            ):
                change = update(table).prefix_with("OR IGNORE").where(table.c.image == old, given)
                connection.execute(change.values(image=new))
            connection.execute(delete(vector).where(vector.c.kind == "joint", vector.c.owner.in_((old, new))))
        connection.execute(update(file).where(file.c.edited_from == old).values(edited_from=None))
    if images is None:
        _drop_lonely(connection, None)
    else:
        for some in chunks(sorted(images)):
            _drop_lonely(connection, some)


def _drop_lonely(connection: Connection, images: Sequence[int] | None) -> None:
    lonely = select(image.c.id).where(~exists().where(file.c.image == image.c.id))
    if images is not None:
        lonely = lonely.where(image.c.id.in_(images))
    captions = select(caption.c.id).where(caption.c.image.in_(lonely))
    connection.execute(delete(vector).where(vector.c.kind == "captions", vector.c.owner.in_(captions)))
    for kind in ("images", "joint"):
        connection.execute(delete(vector).where(vector.c.kind == kind, vector.c.owner.in_(lonely)))
    connection.execute(delete(image).where(image.c.id.in_(lonely)))


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
        connection.execute(_NEW_VECTOR, values)


def replace_vectors(connection: Connection, space_id: int, owned: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
    """As `put_vectors` for images, but new vectors take the place of old ones, under new ids."""
    for some in chunks([owner for owner, _ in owned]):
        connection.execute(
            delete(vector).where(vector.c.space == space_id, vector.c.kind == "images", vector.c.owner.in_(some))
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
    for some in chunks(captions):
        connection.execute(delete(vector).where(vector.c.kind == "captions", vector.c.owner.in_(some)))
        connection.execute(delete(caption).where(caption.c.id.in_(some)))


# --- files that go ----------------------------------------------------------------------------------------------


def set_missing(connection: Connection, files: Sequence[int]) -> None:
    """Files that are gone from a root that is there: they leave results and keep their vectors. One that had failed
    is read again when it comes back: no file has the size -1."""
    size = case((file.c.status == "failed", -1), else_=file.c.size)
    for some in chunks(files):
        change = update(file).where(file.c.id.in_(some))
        connection.execute(change.values(status="missing", size=size, error=None, tried_with=None))


def set_present(connection: Connection, files: Sequence[int]) -> None:
    """Missing files that are back with the size and time they had."""
    for some in chunks(files):
        connection.execute(update(file).where(file.c.id.in_(some), file.c.status == "missing").values(status="ok"))


def drop_files(connection: Connection, files: Sequence[int]) -> None:
    """Delete files, and the images that then lie nowhere."""
    images: set[int] = set()
    for some in chunks(files):
        held = select(file.c.image).where(file.c.id.in_(some), file.c.image.is_not(None))
        images.update(connection.execute(held).scalars())
        connection.execute(delete(file).where(file.c.id.in_(some)))
    settle(connection, images)


# --- roots ------------------------------------------------------------------------------------------------------


def images_for_keys(connection: Connection, root_id: int, keys: Sequence[bytes]) -> list[int]:
    """The image under each key; one without content, known by the key alone, where there is none."""
    there = images_of_keys(connection, keys)
    new = {key: hashlib.sha256(b"mmsearch key\0" + key).digest() for key in keys if key not in there}
    if new:
        connection.execute(_NEW_IMAGE, [{"sha256": sha256} for sha256 in new.values()])
        made: dict[bytes, int] = {}
        for some in chunks(list(new.values())):
            rows = connection.execute(select(image.c.sha256, image.c.id).where(image.c.sha256.in_(some)))
            made.update((row[0], row[1]) for row in rows)
        place = {"root": root_id, "size": 0, "mtime_ns": 0, "status": "ok"}
        connection.execute(
            _NEW_FILE, [{**place, "relative": key, "image": made[sha256]} for key, sha256 in new.items()]
        )
        there |= {key: made[sha256] for key, sha256 in new.items()}
    return [there[key] for key in keys]


def add_root(connection: Connection, path: bytes, device: str | None) -> int:
    """The id of the root at `path`; made if it is new. b"" is the one for keys."""
    connection.execute(upsert(root).values(path=path, added_at=_now(), device=device).on_conflict_do_nothing())
    return int(connection.execute(select(root.c.id).where(root.c.path == path)).scalar_one())


def set_root(connection: Connection, root_id: int, *, path: bytes | None = None, device: str | None = None) -> None:
    """Change where a root lies, or what device it is on."""
    values: dict[str, Any] = {} if path is None else {"path": path}
    connection.execute(update(root).where(root.c.id == root_id).values(**values, device=device))


def drop_root(connection: Connection, root_id: int) -> int:
    """Delete a root with its files, and the images that then lie nowhere. Returns how many files it had. Only for who
    holds the index lock."""
    dropped = connection.execute(delete(file).where(file.c.root == root_id)).rowcount
    connection.execute(delete(root).where(root.c.id == root_id))
    settle(connection)
    return int(dropped)


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


def set_calibration(connection: Connection, space_id: int, values: Mapping[str, Any]) -> None:
    """Keep how scores of a space become probabilities."""
    connection.execute(update(space).where(space.c.id == space_id).values(calibration=dict(values)))


def start_run(connection: Connection, command: str) -> int:
    made = connection.execute(insert(run).values(command=command, started_at=_now()).returning(run.c.id))
    return int(made.scalar_one())


def end_run(connection: Connection, run_id: int, counts: Mapping[str, Any]) -> None:
    connection.execute(update(run).where(run.c.id == run_id).values(ended_at=_now(), counts=dict(counts)))


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


# --- what applications give -------------------------------------------------------------------------------------


def set_facts(connection: Connection, image_id: int, values: Mapping[str, Any]) -> None:
    """Columns of an image become these."""
    connection.execute(update(image).where(image.c.id == image_id).values(**values))


def move_vectors(connection: Connection, spaces: Sequence[int], old: int, new: int) -> None:
    """The vectors of image `old` in these spaces become those of `new`, if `old` has no content; what `new` has of
    its own stays."""
    empty = select(image.c.id).where(image.c.id == old, image.c.width.is_(None))
    change = update(vector).prefix_with("OR IGNORE").where(vector.c.owner.in_(empty), vector.c.kind == "images")
    connection.execute(change.where(vector.c.space.in_(spaces)).values(owner=new))
