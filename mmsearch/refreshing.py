"""Brings the vector indexes of a collection up to date with its catalog: the last step of an index run.

A generation holds the vectors up to a certain id. Searches scan the newer ones beside it and leave out what was
deleted since, so it is built anew only when those are many, or when it is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from mmsearch.catalog import read, write
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import SpaceRow
from mmsearch.errors import DamagedError
from mmsearch.types import Progress
from mmsearch.vectors import generations

TAIL_ROWS = 10_000  # rows above the last generation: more than this, or than a tenth of it, and it is built anew
TAIL_SHARE = 0.1
DELETED_SHARE = 0.2  # or this share of its rows was deleted


def refresh(catalog: Catalog, on_progress: Callable[[Progress], None]) -> list[str]:
    """Build what is stale, in every space. Only for who holds the index lock. Returns what the person should know."""
    notices: list[str] = []
    with catalog.reading() as connection:
        spaces = read.spaces(connection)
    for space in spaces:
        folder = catalog.folder / "index" / str(space.id)
        keep: list[str] = []
        for kind in ("images", "captions", "joint"):
            old = space.generation(kind)
            with catalog.reading() as connection:
                name = old
                if _is_stale(connection, folder, space, kind, notices):
                    on_progress(Progress("building"))
                    name = _build(connection, folder, space, kind)
            if name is not None and name != old:
                with catalog.writing() as connection:
                    write.set_generation(connection, space.id, kind, name)
            # The one before stays until the next run: a search that began earlier may be about to open it.
            keep += [one for one in (name, old) if one is not None]
        generations.sweep(folder, keep)
    return notices


def _is_stale(connection: Connection, folder: Path, space: SpaceRow, kind: str, notices: list[str]) -> bool:
    name = space.generation(kind)
    if name is None:
        return read.newest_vector(connection, space.id, kind) > 0
    try:
        generation = generations.open_generation(
            folder / name, dimension=space.dimension, fingerprint=space.fingerprint
        )
        generations.check_generation(folder / name)
    except DamagedError as error:
        notices.append(f"{error} (This run did.)")
        return True
    covered = read.count_vectors(connection, space.id, kind, up_to=generation.highest_id)
    tail = read.count_vectors(connection, space.id, kind) - covered
    deleted = generation.rows - covered
    return tail > min(TAIL_ROWS, TAIL_SHARE * generation.rows) or deleted > DELETED_SHARE * generation.rows


def _build(connection: Connection, folder: Path, space: SpaceRow, kind: str) -> str:
    """The name of a new generation; never one that was used before."""
    newest = read.newest_vector(connection, space.id, kind)
    used = {path.name for path in folder.glob(f"{kind}-*")}
    if (lost := space.generation(kind)) is not None:
        used.add(lost)  # open engines tell generations apart by their names
    name = next(name for number in range(len(used) + 1) if (name := f"{kind}-{newest}-{number}") not in used)
    generations.write_generation(
        folder,
        name,
        "flat",
        read.rows_above(connection, space.id, kind, 0, space.dimension),
        dimension=space.dimension,
        fingerprint=space.fingerprint,
        highest_id=newest,
    )
    return name
