"""Pictures that clients sent, in memory; the least recently used go first. Named by content, so that the same picture
twice is kept once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from mmsearch.server.problems import ProblemError


class Uploads:
    """Safe on several threads. most_bytes: of all together; the newest one stays in any case."""

    def __init__(self, most_bytes: float) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """Keep the bytes of a picture -> its id."""
        name = hashlib.sha256(data).hexdigest()
        with self._lock:
            if name not in self._kept:
                self._kept[name] = data
                self._bytes += len(data)
            self._kept.move_to_end(name)
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return name

    def get(self, name: str) -> bytes:
        """ProblemError 404 where it is not there, or not any more."""
        with self._lock:
            if name not in self._kept:
                raise ProblemError(404, f"The upload {name[:12]}… is not here any more; send the picture again.")
            self._kept.move_to_end(name)
            return self._kept[name]
