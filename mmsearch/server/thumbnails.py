"""Pictures in small: upright, as WebP, made once and kept below the collection's `thumbnails/`, or in memory where
that cannot be written. Named by content, so that they are never out of date; deleting them costs nothing but time.

`size` is the most pixels of the shorter side; the longer one has at most LONGEST times that.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmsearch.decode import decode
from mmsearch.settings import Limits

if TYPE_CHECKING:
    from PIL import Image

Size = Literal[160, 320, 640, 1280]
LONGEST = 3
QUALITY = 80
MEDIA_TYPE = "image/webp"
MEMORY_BYTES = 32_000_000  # where the folder cannot be written


class Thumbnails:
    """Safe on several threads; two that ask for the same thumbnail at once may both make it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._memory: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, folder: Path, sha256: str, size: Size, content: Callable[[], bytes]) -> bytes:
        """The thumbnail of a content. folder: of the collection. content: gives the picture file's bytes, where they
        are needed. Raises PictureError."""
        kept = folder / "thumbnails" / str(size) / sha256[:2] / f"{sha256}.webp"
        with suppress(OSError):
            return kept.read_bytes()
        with self._lock:
            if (sha256, size) in self._memory:
                self._memory.move_to_end((sha256, size))
                return self._memory[sha256, size]
        made = thumbnail(decode(content(), target=size, limits=self._limits).picture, size)
        try:
            _keep(kept, made)
        except OSError:  # a read-only or full disk
            self._remember((sha256, size), made)
        return made

    def _remember(self, key: tuple[str, int], made: bytes) -> None:
        with self._lock:
            if key not in self._memory:
                self._memory[key] = made
                self._bytes += len(made)
            while self._bytes > MEMORY_BYTES:
                self._bytes -= len(self._memory.popitem(last=False)[1])


def thumbnail(picture: Image.Image, size: Size) -> bytes:
    """An upright RGB picture in small, as WebP."""
    short, long = sorted(picture.size)
    scale = min(1.0, size / short, LONGEST * size / long)
    small = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), reducing_gap=3
    )
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()


def _keep(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else is writing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
