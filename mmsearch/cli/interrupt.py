"""Ctrl-C during an index run: the first one asks for a clean end, the second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from mmsearch.cli.exits import Exit

_SHOW_CURSOR = b"\x1b[?25h"  # the progress bar hides it


@dataclass(slots=True)
class Interrupt:
    """`asked` is set by the first signal; `code` is what the process then exits with."""

    asked: threading.Event = field(default_factory=threading.Event)
    code: Exit = Exit.INTERRUPTED


@contextmanager
def polite_interrupt() -> Iterator[Interrupt]:
    """While open, SIGINT and SIGTERM set an event instead of raising. Main thread only, as signals are."""
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        # Straight to the descriptor: a buffered stream may be in the middle of a write when a signal arrives.
        if interrupt.asked.is_set():
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + b"\nmmsearch: stopped at once.\n")
            os._exit(interrupt.code)  # as safe as a kill: what was committed is kept
        interrupt.code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        interrupt.asked.set()
        os.write(2, b"\nmmsearch: stopping after the pictures at hand; press Ctrl-C again to stop at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
