"""The check-up behind `mmsearch doctor`: what is there, what is wrong with it, and what to do about each finding.

In: the folder of a collection, which need not be there or sound. Out: findings. Quick: it looks at states, sizes and
headers, and asks the encoder for one text; `verify` compares every stored byte. Nothing is changed.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from mmsearch import installation
from mmsearch.catalog import read
from mmsearch.catalog.catalog import Catalog
from mmsearch.catalog.locks import locked
from mmsearch.catalog.read import SpaceRow
from mmsearch.encoders.lite import LiteEncoder
from mmsearch.encoders.protocol import Encoder
from mmsearch.encoders.registry import load_encoder
from mmsearch.errors import CollectionNotFoundError, DamagedError, MMSearchError
from mmsearch.refreshing import DELETED_SHARE, TAIL_ROWS, TAIL_SHARE
from mmsearch.relevance import calibration_for
from mmsearch.types import Area, Finding
from mmsearch.vectors import generations

SPARE_BYTES = 200_000_000  # beside a new index: the catalog's journal, and room for other programs
KINDS = ("images", "captions", "joint")
MOUNTS = Path("/proc/self/mountinfo")
# File systems, by the names that stand there, whose locks and shared memory SQLite cannot count on.
NETWORK = frozenset("9p afs ceph cifs fuse.glusterfs fuse.s3fs fuse.sshfs nfs nfs4 smb3 smbfs".split())  # noqa: SIM905


def check(folder: Path, encoder: Encoder | None = None) -> tuple[Finding, ...]:
    """All findings, by area. encoder: one that an application brought along, for the space that it made.

    Raises nothing on account of what it finds: that is a finding.
    """
    found: list[Finding] = []
    spaces: list[tuple[SpaceRow, str | None]] = []
    catalog = _opened(folder, found)
    if catalog is not None:
        with closing(catalog):
            _take(found, "collection", _collection(catalog))
            if all(one.state != "problem" for one in found):
                _take(found, "index", _indexes(catalog))
                _take(found, "disk", _room(catalog))
                spaces = _spaces(catalog)
    _take(found, "disk", _place(folder))
    _take(found, "disk", installation.data())
    _take(found, "model", _lite())
    for space, calibration in spaces:
        _take(found, "model", _model(space, calibration, encoder))
    _take(found, "extras", installation.extras())
    _take(found, "versions", installation.versions())
    return tuple(found)


def _opened(folder: Path, found: list[Finding]) -> Catalog | None:
    try:
        return Catalog(folder, create=False)
    except CollectionNotFoundError as error:
        found.append(_failure("collection", "warning", error))
    except (MMSearchError, SQLAlchemyError, OSError) as error:
        found.append(_failure("collection", "problem", error))
    return None


def _take(found: list[Finding], area: Area, findings: Iterable[Finding]) -> None:
    """What raises in the middle is the last finding of its area."""
    try:
        found.extend(findings)
    except (MMSearchError, SQLAlchemyError, OSError) as error:
        found.append(_failure(area, "problem", error))


def _failure(area: Area, state: Literal["warning", "problem"], error: Exception) -> Finding:
    """Our messages end with what to do, after a semicolon or as a sentence of its own."""
    if isinstance(error, SQLAlchemyError):
        what = " ".join(str(getattr(error, "orig", error)).split())
        remedy = "restore the collection from a backup, or remove it and index again"
        return Finding(area, state, f"the catalog cannot be read ({what})", remedy)
    parts = re.fullmatch(r"(.+)(?:; |\. )(.+?)\.?", str(error), re.DOTALL)
    return Finding(area, state, parts[1], parts[2]) if parts else Finding(area, state, str(error))


# --- the collection -----------------------------------------------------------------------------------------------


def _collection(catalog: Catalog) -> Iterator[Finding]:
    with catalog.reading() as connection:
        roots, files = read.roots(connection), read.count_files(connection)
        failed, missing = (sum(read.count_files(connection, status=one).values()) for one in ("failed", "missing"))
        images, captions = read.count_images(connection), read.count_captions(connection)
    what = f"pictures: {images:,}, captions: {captions:,}, folders: {len(roots)}"
    yield Finding("collection", "ok", f"{catalog.folder} ({what})")
    if not images:
        yield Finding("collection", "warning", "it holds no pictures", "`mmsearch index FOLDER` adds some")
    for root in roots:
        shown = os.fsdecode(root.path)
        if not os.path.isdir(root.path):
            remedy = f"mount its disk, or: mmsearch roots relocate {shown} NEW_FOLDER"
            message = f"the folder {shown} is away; files there: {files.get(root.id, 0):,}"
            yield Finding("collection", "warning", message, remedy)
        elif not os.access(root.path, os.R_OK | os.X_OK):
            yield Finding("collection", "warning", f"the folder {shown} cannot be read", "change its permissions")
    if failed:
        message = f"files that could not be indexed: {failed:,}"
        yield Finding("collection", "warning", message, "`mmsearch status` lists them with the reasons")
    if missing:
        message = f"files that are gone, or were left out at the last run: {missing:,}"
        yield Finding("collection", "warning", message, "`mmsearch index --prune` forgets them")


def _spaces(catalog: Catalog) -> list[tuple[SpaceRow, str | None]]:
    """Each space with its stored calibration."""
    with catalog.reading() as connection:
        return [(space, read.calibration(connection, space.id)) for space in read.spaces(connection)]


# --- the disk -----------------------------------------------------------------------------------------------------


def _room(catalog: Catalog) -> Iterator[Finding]:
    """Whether the next index run can write: a generation is written beside the one that it replaces."""
    with catalog.reading() as connection:
        sizes = [
            2 * space.dimension * read.count_vectors(connection, space.id, kind)
            for space in read.spaces(connection)
            for kind in KINDS
        ]
    free, needed = shutil.disk_usage(catalog.folder).free, max(sizes, default=0)
    message = f"free beside the collection: {free / 1e6:,.0f} MB; a new index takes {needed / 1e6:,.1f} MB"
    if free < needed + SPARE_BYTES:
        remedy = "free some space, or move the collection's folder to another disk"
        yield Finding("disk", "problem" if free < needed else "warning", message, remedy)
    else:
        yield Finding("disk", "ok", message)


def _place(folder: Path) -> Iterator[Finding]:
    """Whether the file system lets a collection be written and locked there."""
    there = installation.nearest(folder)
    kind = _file_system(there)
    if kind in NETWORK:
        message = f"{there} is on a network file system ({kind}); databases can be damaged there"
        yield Finding("disk", "warning", message, "keep collections on a local disk, pictures anywhere: -c ./FOLDER")
    if not os.access(there, os.W_OK | os.X_OK):
        message = f"{there} cannot be written: a collection there can be searched, but not made or changed"
        yield Finding("disk", "warning", message, "change its permissions, or index as the user who owns it")
    elif (folder / "catalog.sqlite").is_file():
        with locked(folder / "write.lock", give_up=lambda: True, pause=0):
            pass  # raises LockError where the file system cannot lock
        yield Finding("disk", "ok", f"{folder} can be written and locked")


def _file_system(folder: Path) -> str | None:
    """What the system calls the file system of a folder; None where it does not say (not Linux)."""
    try:
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        mount, _, system = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mount.split()[4])
        if Path(os.path.realpath(folder)).is_relative_to(point) and len(point) >= len(best):
            best, kind = point, system.split()[0]
    return kind


# --- the index ----------------------------------------------------------------------------------------------------


def _indexes(catalog: Catalog) -> Iterator[Finding]:
    with catalog.reading() as connection:
        spaces = read.spaces(connection)
        if spaces and not any(space.current for space in spaces):
            message = "no model's vectors are complete yet, so there is nothing to search"
            yield Finding("index", "warning", message, "`mmsearch index` goes on where it stopped")
        for space in spaces:
            if space.state != "ready":
                lacking = read.images_without_vector(connection, space.id)
                message = f"{space.encoder}: not complete yet; pictures to encode: {lacking:,}"
                remedy = f"`mmsearch index --model {space.encoder}` goes on where it stopped"
                yield Finding("index", "warning", message, remedy)
            for kind in KINDS:
                if read.newest_vector(connection, space.id, kind) or space.generation(kind):
                    yield _index(connection, catalog.folder / "index" / str(space.id), space, kind)
    if spaces:
        yield Finding("index", "ok", "sizes and headers are looked at here; `mmsearch verify` compares every byte")


def _index(connection: Connection, folder: Path, space: SpaceRow, kind: str) -> Finding:
    """The same conditions as in `refreshing`, by which the next run builds an index anew; without its checksums."""
    name, rows = space.generation(kind), read.count_vectors(connection, space.id, kind)
    what = f"{space.encoder}, {kind}: {rows:,} vectors"
    again = "`mmsearch index` builds it; until then all vectors are read for each search"
    if name is None:
        return Finding("index", "warning" if rows > TAIL_ROWS else "ok", f"{what}, no index yet", again)
    try:
        generation = generations.open_generation(
            folder / name, dimension=space.dimension, fingerprint=space.fingerprint
        )
    except DamagedError as error:
        return _failure("index", "problem", error)
    covered = read.count_vectors(connection, space.id, kind, up_to=generation.highest_id)
    newer, gone = rows - covered, generation.rows - covered
    kept = f"{what}; newer than its {generation.kind} index: {newer:,}, deleted since: {gone:,}"
    if newer > min(TAIL_ROWS, TAIL_SHARE * generation.rows) or gone > DELETED_SHARE * generation.rows:
        return Finding("index", "warning", kept, "`mmsearch index` builds it anew, and searches become quicker")
    return Finding("index", "ok", kept)


# --- the models ---------------------------------------------------------------------------------------------------


def _lite() -> Iterator[Finding]:
    """The built-in encoder, byte by byte: it is what works offline."""
    encoder = LiteEncoder()
    encoder.verify_files()
    yield from _encodes(encoder, "lite, the built-in model, is whole and encodes texts", "problem")


def _model(space: SpaceRow, calibration: str | None, given: Encoder | None) -> Iterator[Finding]:
    """Whether the encoder of a space is here, is the one that made its vectors, and works."""
    unusable: Literal["warning", "problem"] = "problem" if space.current else "warning"
    if given is not None and given.space.fingerprint == space.fingerprint:
        encoder = given
    elif space.fingerprint.startswith(read.GIVEN):
        yield Finding("model", "ok", f"{space.encoder}: its vectors come from an application, and are searched by it")
        return
    else:
        try:
            encoder = load_encoder(space.encoder)
            made_by = encoder.space.fingerprint
        except MMSearchError as error:
            yield _failure("model", unusable, error)
            return
        if made_by != space.fingerprint:
            message = f"{space.encoder}: the vectors were made by other weights than the ones here"
            remedy = f"`mmsearch index --model {space.encoder}` encodes the pictures again"
            yield Finding("model", unusable, message, remedy)
            return
    if space.current and not isinstance(encoder, LiteEncoder):
        yield from _encodes(encoder, f"{space.encoder}, which queries use, encodes texts{_device()}", unusable)
    known = calibration_for(encoder, None if calibration is None else json.loads(calibration))
    yield _probabilities(space, None if known is None else known.kind)


def _encodes(encoder: Encoder, message: str, unusable: Literal["warning", "problem"]) -> Iterator[Finding]:
    try:
        row = encoder.encode_texts(["a red kite over the sea"])
    except (MMSearchError, ImportError) as error:
        yield _failure("model", unusable, error)
        return
    if row.shape == (1, encoder.space.dimension) and math.isclose(float(np.linalg.norm(row)), 1, abs_tol=1e-3):
        yield Finding("model", "ok", message)
    else:
        what = f"{encoder.space.name}: a text became no vector of {encoder.space.dimension} numbers and unit length"
        yield Finding("model", unusable, what, "install or fetch the model again")


def _device() -> str:
    """Where torch would run. It is asked only when a model has loaded it already: that takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    return f" (GPU: {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none that torch can use'})"


def _probabilities(space: SpaceRow, kind: str | None) -> Finding:
    if kind == "encoder":
        return Finding("model", "ok", f"{space.encoder}: probabilities come from labelled pairs, fitted for this model")
    if kind == "collection":
        return Finding("model", "ok", f"{space.encoder}: probabilities are estimated from the collection: rougher")
    remedy = "`mmsearch index` estimates them once there are enough pictures"
    return Finding("model", "ok", f"{space.encoder}: no probabilities, so results have no cut-off", remedy)
