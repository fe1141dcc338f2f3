"""`mmsearch index`: pictures of folders into a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, show_json, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.interrupt import polite_interrupt
from mmsearch.cli.progress import progress_shown
from mmsearch.render import json
from mmsearch.render import report as render
from mmsearch.render.text import printable
from mmsearch.settings import Limits
from mmsearch.types import IndexReport

_FAILURES_SHOWN = 10  # the rest is in `status`

EXAMPLES = """\b
Examples:
  mmsearch index ~/Pictures
  mmsearch index                  all known folders again
  mmsearch index ./flickr8k/images \\
      --captions ./flickr8k/captions.csv
  mmsearch index ~/Pictures --exclude '*.gif' --prune
  mmsearch index --ocr            text in pictures, too
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
    """
    from mmsearch.engine import Engine

    limits = Limits(max_megapixels, max_megabytes)
    with (
        Engine.open(collection, model=model, device=device, precision=precision, limits=limits) as engine,
        polite_interrupt() as interrupt,
        progress_shown() as on_progress,
    ):
        report = engine.index(
            paths or (),
            captions=captions or (),
            exclude=exclude or (),
            prune=prune,
            ocr=ocr,
            on_progress=on_progress,
            cancel=interrupt.asked,
        )
    if as_json:
        show_json(json.index_report(report))
    else:
        say(render.index_report(report))
    _tell_problems(report)
    if report.cancelled:
        warn("stopped early; what was indexed is kept, and the same command goes on from there.")
        return interrupt.code
    if report.failed:
        return Exit.SOME_FAILED
    if report.new and not report.unchanged and on_terminal() and not as_json:
        say(f'Now try: mmsearch query {f"-c {collection} " if collection else ""}"a red sports car"')
    return Exit.DONE


def _tell_problems(report: IndexReport) -> None:
    for root, reason in report.left_alone:
        warn(f"{printable(str(root))}: left alone: {reason}")
    for notice in report.notices:
        warn(notice)
    shown = report.failures[:_FAILURES_SHOWN]
    for failure in shown:
        warn(f"{printable(str(failure.path))}: {failure.error}")
    if report.failed > len(shown):  # those of earlier runs among them: they are tried again when they change
        more = f"{report.failed - len(shown):,} more failed" if shown else f"{report.failed:,} failed in earlier runs"
        warn(f"{more}; `mmsearch status` lists them all.")
