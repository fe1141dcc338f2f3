"""Following folders: which of them changed, by the system's events (watchfiles) or, where these don't come, by looking.

    needs_polling   why the events of a folder cannot be relied on, if so
    Events          several folders, followed by events
    Looks           one folder, looked at again and again

Neither says what changed: an index run finds that out better.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

from mmsearch import files

TICK_SECONDS = 0.5  # how long a call waits for something to happen
QUIET_SECONDS = 0.3  # events are handed on when none came for so long, so that a file is whole, and a copy complete,
LONGEST_SECONDS = 5.0  # but after so long at the latest
LOOK_SECONDS = 2.0  # from look to look at least; looking takes no more than a share of the time
LOOK_SHARE = 0.05
SETTLE_SECONDS = 1.0  # what changed is looked at again, until it stays the same
MOST_LOOKS = 5

# File systems whose changes may be made by others than this kernel, which tells of none of them.
_REMOTE = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|ceph|lustre|gpfs|ncpfs|9p|v9fs|drvfs|virtiofs|vboxsf|prl_fs|vmhgfs|fuse(\..*)?"
)
_LAYERED = re.compile(r"overlay|aufs|unionfs")


@dataclass(frozen=True, slots=True)
class Following:
    """How a folder is followed: by `events`, by `polling` and for which reason, or not while it is `away`."""

    folder: Path
    how: Literal["events", "polling", "away"]
    reason: str = ""


def needs_polling(folder: Path, mounts: str | None = None) -> str | None:
    """Why events do not tell of all changes below a folder; None where they do, as far as is known. mounts: what is
    mounted, as in /proc/self/mountinfo."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        except OSError:
            return None  # not Linux: there the system's events cover what it mounts
    wanted = os.path.join(os.path.realpath(folder), "")
    around, around_kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if not after or len(before.split(" ")) < 5:
            continue
        place = os.path.join(_plain(before.split(" ")[4]), "")
        kind = after.split(" ")[0]
        if wanted.startswith(place) and len(place) >= len(around):  # a later one lies over an earlier one
            around, around_kind = place, kind
        elif place.startswith(wanted) and (why := _why(kind)):
            return f"{why} (at {place[:-1]})"
    return _why(around_kind)


def _plain(escaped: str) -> str:
    """`\\040` is a space, and so on."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), escaped)


def _why(kind: str) -> str | None:
    if _REMOTE.fullmatch(kind):
        return f"{kind} does not tell of changes made elsewhere"
    if _LAYERED.fullmatch(kind):
        return f"{kind} does not tell of changes in its lower layers"
    return None


class Events:
    """Folders followed by the system's events; none is missed, also while nobody asks. Raises OSError where that cannot
    be, or not any longer: a folder is not there, the system's limit is reached."""

    def __init__(self, folders: Sequence[Path], ignored: Callable[[str], bool], stop: Event) -> None:
        from watchfiles import watch

        self._folders, self._ignored = folders, ignored
        self._early = set[Path]()
        self._changes = watch(
            *folders,
            watch_filter=None,
            debounce=int(LONGEST_SECONDS * 1000),
            step=int(QUIET_SECONDS * 1000),
            stop_event=stop,
            rust_timeout=int(TICK_SECONDS * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=False,
            ignore_permission_denied=True,
        )
        self._early = self.changed()  # the first answer means that all of them are followed

    def changed(self) -> set[Path]:
        """Waits a little; the folders that an index run should look at."""
        found, self._early = self._early, set()
        try:
            changes = next(self._changes, ())
        except RuntimeError as error:  # what watchfiles makes of errors that it does not know
            raise OSError(str(error)) from error
        for change, path in changes:
            if not self._ignored(path):
                around = [one for one in self._folders if Path(path).is_relative_to(one)]
                found |= {one for one in around if may_matter(change.raw_str(), path, one)}
        return found

    def close(self) -> None:
        self._changes.close()


def may_matter(change: str, path: str, root: Path) -> bool:
    """Whether an event (added, modified, deleted) may be about a picture, its captions, ignore rules, or a folder."""
    *folders, name = Path(path).relative_to(root).parts or ("",)
    if name.startswith("._") or any(one.startswith(".") for one in folders):  # as in files.walk
        return False
    if os.path.splitext(name)[1].lower() in (*files.PICTURE_SUFFIXES, ".txt") or name == os.fsdecode(files.IGNORE_FILE):
        return True
    if change == "deleted":  # a folder, it may be
        return True
    return (change == "added" and os.path.isdir(path)) or files.sniff(Path(path))


class Looks:
    """A folder that is looked at again and again."""

    def __init__(self, folder: Path, exclude: Sequence[str]) -> None:
        self._folder, self._exclude = folder, exclude
        self._pictures: dict[tuple[bytes, int, int], bool] = {}  # what of files without a picture's name is known
        self._restless = 0
        self._next = 0.0
        self._state = self._look()

    def changed(self) -> bool:
        """Whether anything is other than it was, and has come to rest. Does nothing where a look is not due."""
        if time.monotonic() < self._next:
            return False
        before, self._state = self._state, self._look()
        if self._state != before:
            self._restless += 1
            if self._restless < MOST_LOOKS:
                self._next = time.monotonic() + SETTLE_SECONDS
                return False
        changed, self._restless = self._restless > 0, 0
        return changed

    def _look(self) -> bytes:
        """A digest of all names, sizes and times below the folder; also of what cannot be read."""
        started = time.monotonic()
        seen = hashlib.blake2b()
        try:
            for one in self._found(seen.update):
                seen.update(repr((one.relative, one.size, one.mtime_ns, one.sidecar)).encode())
        except OSError as error:
            seen.update(str(error.errno).encode())
        took = time.monotonic() - started
        self._next = time.monotonic() + max(LOOK_SECONDS, took / LOOK_SHARE)
        return seen.digest()

    def _found(self, note: Callable[[bytes], None]) -> Iterator[files.FoundFile]:
        """Pictures, as an index run would find them."""
        known, self._pictures = self._pictures, {}
        for one in files.walk(self._folder, exclude=self._exclude, on_unreadable=lambda path, _why: note(path)):
            if not one.picture_suffix:
                key = (one.relative, one.size, one.mtime_ns)
                if key not in known:
                    known[key] = files.sniff(self._folder / os.fsdecode(one.relative))
                self._pictures[key] = known[key]
                if not known[key]:
                    continue
            yield one
