"""`serve --watch`: each collection follows its folders on a thread of its own, for as long as the server runs.

In: what is served. Out: what changed, as runs of the server and as lines of its log; in `State.watching`, how a
collection is followed. Where following ends with an error (a disk that is away), it begins again later.
"""

from __future__ import annotations

import logging
import threading
import time

from mmsearch.errors import MMSearchError
from mmsearch.following import Following
from mmsearch.render import report as lines
from mmsearch.render.text import printable
from mmsearch.server.problems import INTERNAL
from mmsearch.server.run_endpoints import report_json
from mmsearch.server.runs import Run, RunState, end
from mmsearch.server.state import Served, State
from mmsearch.types import IndexReport, Progress

_log = logging.getLogger("mmsearch.server.watching")

AGAIN_SECONDS = 30.0
END_SECONDS = 10.0  # for the pictures at hand; what is cut off loses nothing
_LOOKING = ("waiting", "scanning")  # stages in which a run changes nothing yet


class Watches:
    """Begins with `start`, ends with `stop`."""

    def __init__(self, state: State) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=_Watch(Served(name, engine, state), self._stop).work, name=f"mmsearch-watch-{name}", daemon=True
            )
            for name, engine in state.engines.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Also in the middle of a run, and waits for that."""
        self._stop.set()
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Watch:
    """One collection."""

    def __init__(self, served: Served, stop: threading.Event) -> None:
        self._served, self._stop = served, stop
        self._run: Run | None = None
        self._told: list[str] = []
        self._trouble = ""

    def work(self) -> None:
        while not self._stop.is_set():
            try:
                self._served.engine.watch(
                    poll=self._served.state.settings.poll,
                    on_report=self._report,
                    on_following=self._following,
                    on_trouble=self._say_trouble,
                    on_progress=self._progress,
                    cancel=self._stop,
                )
            except MMSearchError as error:
                self._say_trouble(str(error))
                self._end("failed", str(error), type(error).__name__)
            except Exception:  # noqa: BLE001 - recorded; the server goes on, and tries again
                _log.exception("following %s failed", self._served.name)
                self._end("failed", INTERNAL)
            self._served.state.watching.pop(self._served.name, None)
            self._stop.wait(AGAIN_SECONDS)

    def _following(self, roots: tuple[Following, ...]) -> None:
        ways = {one.how for one in roots}
        self._served.state.watching[self._served.name] = "polling" if "polling" in ways else "events"
        self._say(lines.following(roots))

    def _progress(self, progress: Progress) -> None:
        if self._run is None and progress.stage not in _LOOKING:
            self._run = self._served.state.runs.begun_by_watch(self._served.name)
        if self._run is not None:
            self._run.tell(progress)

    def _report(self, report: IndexReport) -> None:
        self._trouble = ""
        if report.changes:
            self._run = self._run or self._served.state.runs.begun_by_watch(self._served.name)
            self._say(lines.index_report(report))
        problems = lines.index_problems(report)
        for problem in problems:
            if problem not in self._told:
                self._say(problem, logging.WARNING)
        self._told = problems
        if self._run is not None:
            self._run.report = report_json(report, self._served)
            self._end("cancelled" if report.cancelled else "done")

    def _say_trouble(self, trouble: str) -> None:
        """Once, however often it is tried again."""
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble, logging.WARNING)

    def _say(self, line: str, level: int = logging.INFO) -> None:
        _log.log(level, "%s", printable(" ".join(line.split())), extra={"collection": self._served.name})

    def _end(self, state: RunState, message: str = "", error: str | None = None) -> None:
        if self._run is not None:
            self._run.error = error
            end(self._run, state, message)
            self._run = None
