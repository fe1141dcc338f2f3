"""Is everything as it was written? Compares all that is stored with its checksums, and asks a real query.

In: a catalog. Out: one line a problem, each with its remedy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection

from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.read import Found, SpaceRow
from mmsearch.errors import DamagedError, UsageError
from mmsearch.query import Query, Term
from mmsearch.searching import search
from mmsearch.settings import Limits
from mmsearch.types import Verification
from mmsearch.vectors import generations
from mmsearch.views import View

PROBES = 16  # stored vectors that must find themselves, of each space and kind
ATTEMPTS = 3  # something else may write meanwhile: what was wrong must be so again
KINDS = ("images", "captions", "joint")


def verify(catalog: Catalog) -> Verification:
    """See `Engine.verify`."""
    problems: list[str] = []
    vectors = files = 0
    try:
        with catalog.reading() as connection:
            problems += _check_database(connection, catalog)
            spaces = read.spaces(connection)
            vectors, damaged = _check_vectors(connection, spaces)
            problems += damaged
            files = sum(read.count_files(connection).values())
        for space in spaces:
            for kind in KINDS:
                problems += _check_index(catalog, space, kind, compare=not damaged)
        if not problems:
            for space in spaces:
                for kind in KINDS:
                    problems += _check_search(catalog, space, kind)
    except DamagedError as error:
        problems.append(str(error))
    return Verification(vectors, files, tuple(problems))


def _check_database(connection: Connection, catalog: Catalog) -> Iterator[str]:
    remedy = f"restore {catalog.path} from a backup, or remove the collection and index again."
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield f"The catalog is damaged: {line}; {remedy}"
    for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"The catalog is inconsistent: a row of {row[0]} refers to a {row[2]} that is not there; {remedy}"
    lonely = read.vectors_without_owner(connection)
    if lonely:
        yield f"The catalog is inconsistent: {lonely} vectors belong to nothing; {remedy}"


def _check_vectors(connection: Connection, spaces: list[SpaceRow]) -> tuple[int, list[str]]:
    """-> how many there are, problems."""
    widths = {space.id: 2 * space.dimension for space in spaces}
    count, bad, zero = 0, [], []
    for identity, space, data, crc in read.vectors_with_checksums(connection):
        count += 1
        if zlib.crc32(data) != crc or len(data) != widths.get(space):
            bad.append(identity)
        elif not any(data):
            zero.append(identity)
    problems = []
    if bad:
        problems.append(
            f"{len(bad)} stored vectors contradict their checksum ({_shown(bad)}); "
            "restore the catalog from a backup, or remove the collection and index again."
        )
    if zero:
        problems.append(
            f"{len(zero)} stored vectors are zero and point nowhere ({_shown(zero)}); "
            "remove the collection and index again; please report this."
        )
    return count, problems


def _shown(ids: list[int]) -> str:
    return f"ids {', '.join(map(str, ids[:5]))}"


def _check_index(catalog: Catalog, space: SpaceRow, kind: str, *, compare: bool) -> Iterator[str]:
    """compare: whether with the catalog too, not only with its own checksums."""
    for _ in range(ATTEMPTS):
        name = _generation(catalog, space, kind)
        problem = None if name is None else _wrong_with(catalog, space, kind, name, compare=compare)
        if problem is None:
            return
        if _generation(catalog, space, kind) == name:  # else an index run put another in its place meanwhile
            yield problem
            return


def _generation(catalog: Catalog, space: SpaceRow, kind: str) -> str | None:
    with catalog.reading() as connection:
        return next(one for one in read.spaces(connection) if one.id == space.id).generation(kind)


def _wrong_with(catalog: Catalog, space: SpaceRow, kind: str, name: str, *, compare: bool) -> str | None:
    path = catalog.folder / "index" / str(space.id) / name
    try:
        generation = generations.open_generation(path, dimension=space.dimension, fingerprint=space.fingerprint)
        generations.check_generation(path)
    except DamagedError as error:
        return str(error)
    if not compare:
        return None
    with catalog.reading() as connection:
        for ids, rows in read.rows_above(connection, space.id, kind, 0, space.dimension):
            inside = ids <= generation.highest_id
            try:
                same = np.array_equal(generation.index.vectors(ids[inside]), rows[inside])
            except UsageError:  # it lacks some
                same = False
            if not same:
                return f"The vector index {path} holds other vectors than the catalog; `mmsearch index` rebuilds it."
    return None


def _check_search(catalog: Catalog, space: SpaceRow, kind: str) -> Iterator[str]:
    """Stored vectors, evenly spread, must find themselves or one that is equal."""
    view = View(catalog.folder, space)
    try:
        with catalog.reading() as connection:
            ids = read.allowed_ids(connection, space.id, kind, None)
            chosen = ids[:: max(1, len(ids) // PROBES)][:PROBES].tolist()
            probes = read.visible(connection, kind, chosen)
        for probe in probes:
            if not _finds_itself(catalog, view, kind, probe):
                yield (
                    f"An image does not find itself in the index of {space.encoder} ({kind}); "
                    "`mmsearch index` rebuilds it; please report this."
                )
                return
    finally:
        view.close()


def _finds_itself(catalog: Catalog, view: View, kind: str, probe: Found) -> bool:
    """Whether a stored vector finds one that is equal; also when it was deleted or hidden meanwhile."""
    query = Query(
        (Term(vector=probe.row.astype(np.float32)),),
        find="captions" if kind == "captions" else "images",
        match="joint" if kind == "joint" else "vectors",
        k=1,
    )
    for _ in range(ATTEMPTS):
        best = search(catalog, view, None, query, Limits()).hits
        if best and best[0].score >= 1 - 1e-5:
            return True
        with catalog.reading() as connection:
            if not read.visible(connection, kind, [probe.vector]):
                return True
    return False
