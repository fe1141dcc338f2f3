"""An image -> one of its files, opened for reading: the only way that a file of a collection is ever opened here.

A file is served when it lies, links followed, inside an indexed root, and is what was indexed: the same size and time
of change. Indexing follows links out of a root; this does not. The way to the file is walked from the root's descriptor
folder by folder, without links, so that nothing that is swapped meanwhile leads elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from mmsearch.server.problems import ProblemError
from mmsearch.types import ImageDetails, ImageFile

_ONWARD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Opened:
    """A file of an image, open."""

    file: BinaryIO
    place: ImageFile


def open_file(image: ImageDetails, roots: Iterable[os.PathLike[str]]) -> Opened:
    """The first file of an image that may be served. roots: of the collection. ProblemError 404: why none may."""
    reason = "it has no file here; an application added it by key" if not image.files else "its files are gone"
    real_roots = [os.path.realpath(root) for root in roots]
    for place in image.files:
        if not place.present:
            continue
        try:
            file = _inside(os.path.realpath(place.path), real_roots)
        except OSError:
            continue
        if file is None:
            reason = "its file lies, by a link, outside of the indexed folders"
            continue
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) == (place.size_bytes, place.mtime_ns):
            return Opened(file, place)
        file.close()
        reason = "its file has changed since it was indexed; the next index run brings it up to date"
    raise ProblemError(404, f"The image #{image.id} cannot be shown: {reason}.")


def _inside(path: str, roots: Iterable[str]) -> BinaryIO | None:
    """A regular file at a real path, opened from the root around it; None where there is no such root. OSError."""
    for root in roots:
        if path.startswith(os.path.join(root, "")):
            return _walked(root, os.path.relpath(path, root).split(os.sep))
    return None


def _walked(root: str, parts: list[str]) -> BinaryIO:
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            onward = os.open(part, _ONWARD, dir_fd=at)
            os.close(at)
            at = onward
        if not stat.S_ISREG(os.fstat(at).st_mode):
            raise OSError("no regular file")
        return os.fdopen(at, "rb")
    except OSError:
        with suppress(OSError):
            os.close(at)
        raise
