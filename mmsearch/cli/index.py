"""`mmsearch index`: pictures of folders into a collection."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, show_json, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.interrupt import polite_interrupt
from mmsearch.cli.progress import only_waiting, progress_shown
from mmsearch.render import json
from mmsearch.render import report as render
from mmsearch.settings import Limits
from mmsearch.types import IndexReport

if TYPE_CHECKING:
    from mmsearch.following import Following

EXAMPLES = """\b
Examples:
  mmsearch index ~/Pictures
  mmsearch index                  all known folders again
  mmsearch index ./flickr8k/images \\
      --captions ./flickr8k/captions.csv
  mmsearch index ~/Pictures --exclude '*.gif' --prune
  mmsearch index --ocr            text in pictures, too
  mmsearch index ~/Pictures --watch
"""


def add_to(app: typer.Typer) -> None:
    app.command("index", short_help="Make pictures findable.", epilog=EXAMPLES)(index)


def index(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="Folders. Without one: all known folders again.")
    ] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            "--captions",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A table of captions: CSV with image,caption; Kaggle's captions.txt; JSON lines. Can be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave these files out, as in .gitignore. Can be repeated. Lasting patterns belong into a file "
            ".mmsearchignore in the folder itself.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget files that are gone. Never done for folders that are away.")
    ] = False,
    ocr: Annotated[
        bool, typer.Option("--ocr", help="Read the text inside pictures, too; needs the extra mmsearch[ocr].")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on: index again whenever something changes, until Ctrl-C. See mmsearch[watch]."
        ),
    ] = False,
    poll: options.Poll = None,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", min=0.001, metavar="N", help="Refuse larger pictures.")
    ] = Limits().max_megapixels,
    max_megabytes: Annotated[
        float, typer.Option("--max-megabytes", min=0.001, metavar="N", help="Refuse larger files.")
    ] = Limits().max_megabytes,
    as_json: options.AsJson = False,
    collection: options.Collection = None,
) -> Exit:
    """Index the pictures of folders, so that `query` finds them.

    Only new and changed pictures are encoded; moved ones are recognised. Captions are read from a text file beside
    a picture (`beach.txt` for `beach.jpg`), from the picture itself, and from --captions.

    Files that cannot be read are listed, the rest is indexed, and the exit code is 3. Ctrl-C keeps what was done.
    With --watch, a line tells of each run that changed something; --json makes it a document.
    """
    from mmsearch.engine import Engine

    options.check_poll(poll, watch)
    limits = Limits(max_megapixels, max_megabytes)
    told = _Told(as_json)
    with (
        Engine.open(collection, model=model, device=device, precision=precision, limits=limits) as engine,
        polite_interrupt() as interrupt,
    ):
        order = _Order(captions=captions or (), exclude=exclude or (), prune=prune, ocr=ocr, cancel=interrupt.asked)
        with progress_shown() as on_progress:
            report = engine.index(paths or (), **order, on_progress=on_progress)
        told.report(report)
        if watch and not report.cancelled:
            engine.watch(
                paths or (),
                **order,
                poll=poll,
                on_report=told.changes,
                on_following=told.following,
                on_trouble=warn,
                on_progress=only_waiting(),
            )
            return interrupt.code
    if report.cancelled:
        warn("stopped early; what was indexed is kept, and the same command goes on from there.")
        return interrupt.code
    if report.failed:
        return Exit.SOME_FAILED
    if report.new and not report.unchanged and on_terminal() and not as_json:
        say(f'Now try: mmsearch query {f"-c {collection} " if collection else ""}"a red sports car"')
    return Exit.DONE


class _Order(TypedDict):
    """What the first run and those that follow have in common."""

    captions: Sequence[Path]
    exclude: Sequence[str]
    prune: bool
    ocr: bool
    cancel: Event


class _Told:
    """Says what runs did; of several, each thing once."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._problems: list[str] = []

    def report(self, report: IndexReport) -> None:
        """Whatever it was."""
        if self._as_json:
            show_json(json.index_report(report))
        else:
            say(render.index_report(report))
        self._tell_problems(report)

    def changes(self, report: IndexReport) -> None:
        """Where there are any."""
        if report.changes:
            self.report(report)
            sys.stdout.flush()
        else:
            self._tell_problems(report)

    def following(self, roots: tuple[Following, ...]) -> None:
        """A line."""
        warn(f"{render.following(roots)}; Ctrl-C ends it.")

    def _tell_problems(self, report: IndexReport) -> None:
        problems = render.index_problems(report)
        for problem in problems:
            if problem not in self._problems:
                warn(problem)
        self._problems = problems
