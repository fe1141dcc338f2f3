"""Locks that die with their process: `flock` on a file that says who holds it.

`index.lock` is held for a whole index run, `write.lock` for one transaction.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmsearch.errors import CollectionError, LockError

_CANNOT_LOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(
    path: Path, *, on_wait: Callable[[str], None] | None = None, give_up: Callable[[], bool], pause: float
) -> Iterator[bool]:
    """Hold the lock file `path`; yields True while it is held, False when `give_up()` ended the wait.

    on_wait: called once, with who holds the lock, when it is not free. pause: seconds between two tries.
    Raises LockError where the file system cannot lock, CollectionError where the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CollectionError(f"{path.parent} cannot be written: {error.strerror}.") from error
    try:
        waited = False
        while not _try(handle, path):
            if not waited and on_wait is not None:
                on_wait(os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process")
            waited = True
            if give_up():
                yield False
                return
            time.sleep(pause)
        with suppress(OSError):  # who holds it is a courtesy; a full disk must not cost the lock
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield True
    finally:
        os.close(handle)


def _try(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _CANNOT_LOCK:
            raise LockError(
                f"The file system of {path.parent} cannot lock files ({error.strerror}), as some network file systems "
                "cannot; put the collection on a local disk (-c FOLDER)."
            ) from error
        raise
    return True
