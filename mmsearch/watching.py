"""The watch: index runs whenever the roots of a collection change, until it is told to end.

In: how to run, which folders are roots now. Out: reports. It is the same run as ever that finds out what changed and
brings the collection up to date; here is only decided when. Folders that go away and come back are followed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

from mmsearch.errors import LockError
from mmsearch.following import TICK_SECONDS, Events, Following, Looks, needs_polling
from mmsearch.types import IndexReport

RETRY_SECONDS = 10.0

Identity = tuple[int, int] | None  # of a folder: device and number; None while it is away


def watch(
    run: Callable[[Sequence[Path]], IndexReport],
    roots: Callable[[], Sequence[Path]],
    collection: Path,
    *,
    exclude: Sequence[str],
    poll: bool | None,
    on_report: Callable[[IndexReport], None],
    on_following: Callable[[tuple[Following, ...]], None],
    on_trouble: Callable[[str], None],
    cancel: Event,
) -> None:
    """See `Engine.watch`. run: an index run over these roots. roots: asked again and again. collection: its folder,
    whose own files are passed over."""
    following: _Following | None = None
    told: tuple[Following, ...] | None = None
    due: set[Path] = set()
    try:
        while not cancel.is_set():
            there = {folder: _identity(folder) for folder in roots()}
            if following is None or following.there != there:
                if following is not None:
                    following.close()
                following = _Following(there, collection, exclude, poll, cancel)
                due |= set(there)  # of what happened before, nobody told
            else:
                due |= following.changed()
            if following.how != told:
                told = following.how
                on_following(told)
            due &= set(there)
            if due and not cancel.is_set():
                try:
                    report = run(sorted(due))
                except LockError as error:  # the disk of the collection, or another program, is slow: later
                    on_trouble(str(error))
                    cancel.wait(RETRY_SECONDS)
                else:
                    due.clear()
                    on_report(report)
    finally:
        if following is not None:
            following.close()


def _identity(folder: Path) -> Identity:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Following:
    """Several folders, each by events or by looks, for as long as they are what they were."""

    def __init__(
        self, there: dict[Path, Identity], collection: Path, exclude: Sequence[str], poll: bool | None, stop: Event
    ) -> None:
        self.there = there
        self._collection, self._exclude, self._stop = os.path.join(os.path.realpath(collection), ""), exclude, stop
        self._reasons = {folder: self._reason(folder, poll) for folder in there if there[folder]}
        self._events: Events | None = None
        by_events = [folder for folder, reason in self._reasons.items() if reason is None]
        if by_events:
            try:
                self._events = Events(by_events, self._is_own, stop)
            except OSError as error:
                self._give_up(error)
        self._looks = {folder: Looks(folder, exclude) for folder, reason in self._reasons.items() if reason is not None}

    @property
    def how(self) -> tuple[Following, ...]:
        return tuple(self._how(folder) for folder in self.there)

    def changed(self) -> set[Path]:
        """Waits a little; the folders that an index run should look at."""
        found: set[Path] = set()
        if self._events is not None:
            try:
                found |= self._events.changed()
            except OSError as error:
                found |= self._give_up(error)
                self._looks |= {folder: Looks(folder, self._exclude) for folder in found}
        else:
            self._stop.wait(TICK_SECONDS)
        return found | {folder for folder, looks in self._looks.items() if looks.changed()}

    def _give_up(self, error: OSError) -> set[Path]:
        """No more events; the folders that they told of."""
        self.close()
        self._events = None
        told = {folder for folder, reason in self._reasons.items() if reason is None}
        self._reasons |= dict.fromkeys(told, f"the system refuses events: {error.strerror or error}")
        return told

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _reason(self, folder: Path, poll: bool | None) -> str | None:
        """Why a folder is polled; None where it is not."""
        if poll:
            return "as asked"
        if not find_spec("watchfiles"):
            return "for events, pip install 'mmsearch[watch]'"
        return None if poll is False else needs_polling(folder)

    def _how(self, folder: Path) -> Following:
        if folder not in self._reasons:
            return Following(folder, "away")
        reason = self._reasons[folder]
        return Following(folder, "events" if reason is None else "polling", reason or "")

    def _is_own(self, path: str) -> bool:
        """Whether the collection itself writes there, should it lie in a root."""
        if not path.startswith(self._collection):
            return False
        first, _, below = path[len(self._collection) :].partition("/")
        return first in ("index", "thumbnails") or (
            not below and first.startswith(("catalog.sqlite", "index.lock", "write.lock"))
        )
