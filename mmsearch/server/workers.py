"""Threads for what computes or waits for a disk, so that the event loop never does. Bounded, and left behind at the
end of the program: a picture that is still being fetched must not keep it from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from mmsearch.server.problems import ProblemError

_T = TypeVar("_T")

MOST_WAITING = 500  # requests for a thread; more are told to come back


class Workers:
    """`count` threads. seconds: how long a request may wait for its answer, the wait for a thread included."""

    def __init__(self, count: int, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"mmsearch-{name}-{number}", daemon=True).start()

    async def run(self, job: Callable[[], _T]) -> _T:
        """What `job` gives or raises. A job that takes too long is given up, not stopped: its thread stays busy."""
        if self._jobs.qsize() >= MOST_WAITING:
            raise ProblemError(503, "The server has too much to do; try again in a moment.", retry_after=1)
        future: Future[_T] = Future()
        self._jobs.put((future, job))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the job's own
            raise ProblemError(503, f"That took longer than {self._seconds:g} seconds, the limit here.") from None

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue  # who asked is gone
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                future.set_exception(error)
            del future, job
