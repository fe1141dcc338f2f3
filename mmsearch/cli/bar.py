"""The progress bar, on Rich. Imported only when stderr is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from mmsearch.render.text import printable
from mmsearch.types import Progress

_WORDS = {
    "waiting": "waiting",
    "scanning": "looking for pictures",
    "encoding": "pictures",
    "captions": "captions",
    "reading": "reading text",
    "building": "building the index",
    "calibrating": "calibrating",
    "tagging": "tagging",
    "comparing": "comparing",
    "training": "training",
    "mapping": "drawing the map",
}


class _Done(ProgressColumn):
    """`1,200/40,000  85/s`, as far as it is known."""

    def render(self, task: Task) -> Text:
        done = f"{int(task.completed):,}" if task.completed else ""
        total = f"/{int(task.total):,}" if task.total else ""
        rate = f"  {task.speed:,.0f}/s" if task.speed and task.total else ""
        return Text(done + total + rate)


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A stage starts its own bar, so that rate and time left speak of that stage."""
    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        _Done(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=console.is_dumb_terminal,
    )
    task = bars.add_task("starting", total=None)
    stage = message = ""

    def report(progress: Progress) -> None:
        nonlocal stage, message
        if progress.stage != stage:
            stage = progress.stage
            bars.reset(task)
        if progress.message and progress.message != message:  # too long for a bar: a line of its own, once
            message = progress.message
            console.print(Text(f"mmsearch: {printable(message)}"))
        bars.update(task, description=_WORDS[stage], completed=progress.done, total=progress.total or None)

    with bars:
        yield report


@contextmanager
def bytes_shown() -> Iterator[Callable[[int, int], None]]:
    """Megabytes, rate and time left."""
    bars = Bars(
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    task = bars.add_task("", total=None)
    with bars:
        yield lambda done, total: bars.update(task, completed=done, total=total or None)
