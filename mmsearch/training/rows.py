"""Rows of numbers on disk, each under the hash of what it was made of; many small files that are never changed.

A shard is a `.npy` file of at most SHARD records (content 32 bytes, row (w,)). Its name is the checksum of its bytes,
and it is renamed into place when it is whole: so a kill loses the shard being made, two processes may write at once
(at worst a row is there twice), and a damaged shard is noticed, thrown away and made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import UsageError

SHARD = 1024  # records
Precision = Literal["float16", "float32"]

_UNFINISHED = ".unfinished"
_ABANDONED_SECONDS = 3600.0  # nobody writes one shard for so long


class Rows:
    """n rows that lie in shards, mapped into memory and read when they are asked for."""

    def __init__(self, parts: Sequence[NDArray[Any]], places: NDArray[np.int64]) -> None:
        """parts: (m, w) each. places (n, 2): the part and the row in it of each."""
        self._parts, self._places = parts, places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def width(self) -> int:
        return int(self._parts[0].shape[1]) if self._parts else 0

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m, w) float32 of these rows, in this order."""
        made = np.empty((len(rows), self.width), np.float32)
        part_of, row_of = self._places[rows].T
        for part in np.unique(part_of):
            here = part_of == part
            made[here] = self._parts[part][row_of[here]]
        return made


class Shelf:
    """The shards in one folder, all of one kind of row. Opening it reads them once, against their checksums.
    damaged: how many were thrown away."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self._folder, self._precision = folder, precision
        self._parts: list[NDArray[Any]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self.damaged = 0
        with _said_plainly(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.iterdir()):
                if path.suffix == ".npy":
                    self._open(path)
                elif path.suffix == _UNFINISHED:
                    with suppress(FileNotFoundError):  # whole by now, and renamed
                        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                            path.unlink()

    def missing(self, contents: Sequence[bytes]) -> list[int]:
        """Positions of the contents without a row, each content once."""
        first = {content: number for number, content in reversed(list(enumerate(contents)))}
        return sorted(number for content, number in first.items() if content not in self._places)

    def add(self, contents: Sequence[bytes], rows: NDArray[Any]) -> None:
        """contents: sha256 digests. rows (n, w). Raises UsageError where the disk is full or cannot be written to."""
        records = np.empty(len(rows), [("content", "V32"), ("row", self._precision, (rows.shape[1],))])
        records["content"] = np.frombuffer(b"".join(contents), "V32")
        records["row"] = rows
        stream = io.BytesIO()
        np.save(stream, records, allow_pickle=False)
        data = stream.getbuffer()
        path = self._folder / f"{_checksum(data)}.npy"
        unfinished = path.with_suffix(f".{os.getpid()}{_UNFINISHED}")
        with _said_plainly(self._folder):
            try:
                with unfinished.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(path)
            except OSError:
                with suppress(OSError):
                    unfinished.unlink()
                raise
            self._open(path)

    def rows(self, contents: Sequence[bytes]) -> Rows:
        """Of contents that are all there, in order."""
        places = np.array([self._places[content] for content in contents], np.int64)
        return Rows(self._parts, places.reshape(len(contents), 2))

    def _open(self, path: Path) -> None:
        try:
            whole = _checksum(path.read_bytes()) == path.stem
        except FileNotFoundError:  # another process found it damaged
            return
        if not whole:
            self.damaged += 1
            path.unlink(missing_ok=True)
            return
        records = np.load(path, mmap_mode="r", allow_pickle=False)
        for row, content in enumerate(records["content"].tolist()):
            self._places.setdefault(content, (len(self._parts), row))
        self._parts.append(records["row"])


def _checksum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"The cache {folder} cannot be used: {why}; free some space, or name another folder."
        ) from error
