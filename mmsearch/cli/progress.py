"""What a long command is doing: a bar with rate and time left on a terminal, almost nothing elsewhere. On stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmsearch.cli.console import warn
from mmsearch.types import Progress


@contextmanager
def progress_shown() -> Iterator[Callable[[Progress], None]]:
    """Yields the `on_progress` of a long job. The bar disappears at the end."""
    if not sys.stderr.isatty():
        yield only_waiting()
        return
    from mmsearch.cli import bar

    with bar.shown() as report:
        yield report


def only_waiting() -> Callable[[Progress], None]:
    """A log wants to know why nothing happens, once; it does not want a bar."""
    said: set[str] = set()

    def report(progress: Progress) -> None:
        if progress.stage == "waiting" and progress.message not in said:
            said.add(progress.message)
            warn(progress.message)

    return report


@contextmanager
def bytes_shown() -> Iterator[Callable[[int, int], None]]:
    """Yields the `on_progress(done, total)` of a download, in bytes."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from mmsearch.cli import bar

    with bar.bytes_shown() as report:
        yield report
