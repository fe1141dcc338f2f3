"""Runs: what takes minutes, one after the other on a thread of its own, with its state for whoever asks.

In: a kind of run and the work itself. Out: a `Run`, whose `state` goes from waiting through running to done, failed or
cancelled. The thread is left behind at the end of the program: an index run that is cut off loses nothing.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from mmsearch.errors import MMSearchError
from mmsearch.server.problems import INTERNAL, ProblemError
from mmsearch.types import Progress

_log = logging.getLogger("mmsearch.server")

RunKind = Literal["index", "evaluate", "tag", "map"]
RunState = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
KEPT = 100  # runs that have ended
MOST_WAITING = 20

Work = Callable[["Run"], dict[str, Any] | None]  # gives the report in JSON; raises MMSearchError


class CancelledError(Exception):
    """The run was asked to end, and did so where its progress is told."""


@dataclass(slots=True)
class Run:
    """One run. `asked` is set to cancel it. by_watch: it keeps up with the folders, and ends with that alone. version:
    grows with every change."""

    id: int
    kind: RunKind
    collection: str
    asked: threading.Event = field(default_factory=threading.Event)
    state: RunState = "waiting"
    progress: Progress | None = None
    message: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    report: dict[str, Any] | None = None
    error: str | None = None
    by_watch: bool = False
    version: int = 0

    def tell(self, progress: Progress) -> None:
        """Called by the work, often."""
        self.progress = progress
        self.version += 1

    def tell_or_end(self, progress: Progress) -> None:
        """The same for work that knows no other way to be cancelled: this ends it."""
        self.tell(progress)
        if self.asked.is_set():
            raise CancelledError

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def to_json(self) -> dict[str, Any]:
        progress = self.progress
        return {
            "id": self.id,
            "kind": self.kind,
            "collection": self.collection,
            "state": self.state,
            "stage": None if progress is None else progress.stage,
            "done": 0 if progress is None else progress.done,
            "total": 0 if progress is None else progress.total,
            "message": self.message or (progress.message if progress is not None else ""),
            "started_at": None if self.started_at is None else self.started_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
            "report": self.report,
            "error": self.error,
        }


class Runs:
    """All runs of one server, at work or done."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Run, Work]] = queue.SimpleQueue()
        self._next = 1
        threading.Thread(target=self._work, name="mmsearch-runs", daemon=True).start()

    def start(self, kind: RunKind, collection: str, work: Work) -> Run:
        """ProblemError 503 where too many wait already."""
        with self._lock:
            if sum(one.state == "waiting" for one in self._runs.values()) >= MOST_WAITING:
                raise ProblemError(503, f"{MOST_WAITING} runs are waiting already; try again later.", retry_after=60)
            run = self._new(kind, collection)
        self._waiting.put((run, work))
        return run

    def begun_by_watch(self, collection: str) -> Run:
        """An index run that is at work on the watch's own thread, which ends it (`end`)."""
        with self._lock:
            run = self._new("index", collection)
            run.by_watch, run.state, run.started_at = True, "running", datetime.now(UTC)
        return run

    def _new(self, kind: RunKind, collection: str) -> Run:
        run = Run(self._next, kind, collection)
        self._next += 1
        self._runs[run.id] = run
        ended = [one.id for one in self._runs.values() if one.ended]
        for old in ended[:-KEPT]:
            del self._runs[old]
        return run

    def get(self, run: int) -> Run:
        with self._lock:
            found = self._runs.get(run)
        if found is None:
            raise ProblemError(404, f"There is no run {run} here.")
        return found

    def all(self) -> list[Run]:
        """The newest first."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda one: -one.id)

    def cancel(self, run: int) -> Run:
        """Ask a run to end; one that waits has ended with that."""
        found = self.get(run)
        if found.by_watch and not found.ended:
            raise ProblemError(409, f"The run {run} keeps up with the folders (--watch); it ends by itself.")
        found.asked.set()
        with self._lock:
            if found.state == "waiting":
                end(found, "cancelled")
        return found

    def cancel_all(self) -> None:
        for run in self.all():
            if not (run.ended or run.by_watch):
                self.cancel(run.id)

    def _work(self) -> None:
        while True:
            run, work = self._waiting.get()
            with self._lock:
                if run.ended:
                    continue
                run.state, run.started_at = "running", datetime.now(UTC)
                run.version += 1
            try:
                run.report = work(run)
                end(run, "cancelled" if run.asked.is_set() else "done")
            except CancelledError:
                end(run, "cancelled")
            except MMSearchError as error:
                run.error = type(error).__name__
                end(run, "failed", str(error))
            except Exception:  # noqa: BLE001 - recorded with the run that failed, whatever it was
                _log.exception("run %s of %s failed", run.id, run.kind)
                end(run, "failed", INTERNAL)


def end(run: Run, state: RunState, message: str = "") -> None:
    """By whoever does its work."""
    run.message, run.ended_at, run.state = message, datetime.now(UTC), state
    run.version += 1
