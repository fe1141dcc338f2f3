"""`mmsearch eval`: how well an encoder does on one's own pictures."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json, show_table, warn
from mmsearch.cli.progress import progress_shown
from mmsearch.errors import MissingExtraError, UsageError
from mmsearch.render import figures, json, table
from mmsearch.render.text import printable
from mmsearch.settings import DEFAULT_MODEL, Limits

if TYPE_CHECKING:
    from mmsearch.evaluation import Evaluation
    from mmsearch.testsets import Source

EXAMPLES = """\b
Examples:
  mmsearch eval
  mmsearch eval -c trips --from folders
  mmsearch eval ./flickr8k --split ./flickr8k/test.txt
  mmsearch eval ./mine --model lite --model ./my-model
  mmsearch eval ./mine --report mine.md
"""

PACKAGES = ("mmsearch", "numpy", "onnxruntime", "faiss-cpu", "pillow", "torch", "open_clip_torch")


def add_to(app: typer.Typer) -> None:
    app.command("eval", short_help="Measure an encoder on your pictures.", epilog=EXAMPLES)(evaluate)


def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            show_default=False,
            exists=True,
            file_okay=False,
            help="A folder with images/ and captions.csv (image,caption) or captions.txt; with labels.csv "
            "(image,label); or with a subfolder for each label. Without it: the collection.",
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Of DIR, use only the images that this file names, one a line.",
        ),
    ] = None,
    source: Annotated[
        Literal["captions", "folders"] | None,
        typer.Option(
            "--from",
            help="What to ask a collection by: its captions, or what its folders are called. Without it: captions "
            "where there are enough.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The encoder, as `mmsearch models` names it. Given twice: both, side by side.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.md", help="Write a Markdown report, with plots beside it."),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
    collection: options.Collection = None,
) -> None:
    """Measure how often captions find their picture (t2i) and pictures one of their captions (i2t).

    R@k is the share of queries, in percent, whose right answer is among the first k. With labels: how well a label
    finds its pictures (t2i), and a picture the others of its label (i2i). Each figure comes with a 95 % interval; of
    two models it is said whether the difference is more than chance.

    DIR needs no collection; without --model it is measured with lite. Without DIR, a test set is built from the
    collection's own captions, or from what its folders are called; stored vectors are used.
    """
    models = _checked(folder, split, source, model or [], report, collection)
    if folder is not None:
        result = _of_folder(folder, split, models, device, precision)
    else:
        result = _of_collection(collection, source, models, device, precision)
    for failure in result.left_out[:10]:
        warn(f"left out: {printable(str(failure.path))}: {failure.error}")
    if len(result.left_out) > 10:
        warn(f"and {len(result.left_out) - 10:,} more images left out.")
    if report is not None:
        _write_report(report, result)
    if as_json:
        show_json(json.evaluation(result))
    else:
        show(result)


def show(result: Evaluation) -> None:
    """All figures on stdout; used by `mmsearch compare`, too."""
    if result.text_to_image is not None:
        show_table(table.figures_table(result))
    if result.rival is not None:
        show_table(figures.differences_table(result))
        say(f"first: {printable(result.space)}, second: {printable(result.rival.space)}")
        for line in figures.verdicts(result):
            say(line)
    else:
        show_table(figures.measures_table(result.measures))
    if result.labels:
        say(f"found worst: {figures.weakest(result.labels)}")
    if result.index is not None:
        say(figures.index_line(result.index))
    say(printable(result.about))
    say(figures.summary(result))


def _checked(
    folder: Path | None,
    split: Path | None,
    source: str | None,
    models: list[str],
    report: Path | None,
    collection: str | None,
) -> list[str]:
    """UsageError where the arguments do not fit together, before anything long begins."""
    if folder is not None and (source is not None or collection is not None):
        raise UsageError("DIR needs no collection: leave out DIR, or --collection and --from.")
    if folder is None and split is not None:
        raise UsageError("--split is for a DIR; name the folder whose images it names.")
    if len(models) > 2 or len(set(models)) < len(models):
        raise UsageError("--model goes once or twice, with two different names.")
    if report is not None and report.suffix.lower() != ".md":
        raise UsageError(f"The report {report} must end in .md: it is written in Markdown.")
    if report is not None and not (report.parent.is_dir() and os.access(report.parent, os.W_OK)):
        raise UsageError(f"The report {report} cannot be written: {report.parent} is no folder that can be written to.")
    return models


def _of_folder(folder: Path, split: Path | None, models: list[str], device: str, precision: str) -> Evaluation:
    from mmsearch import evaluation
    from mmsearch.encoders.registry import load_encoder

    encoders = [load_encoder(name, device=device, precision=precision) for name in models or [DEFAULT_MODEL]]
    with progress_shown() as on_progress:
        return evaluation.evaluate(
            folder,
            encoders[0],
            rival=encoders[1] if len(encoders) > 1 else None,
            split=split,
            limits=Limits(),
            on_progress=on_progress,
        )


def _of_collection(
    collection: str | None, source: Source | None, models: list[str], device: str, precision: str
) -> Evaluation:
    from mmsearch.engine import Engine

    first, second = [*models, None, None][:2]
    with (
        Engine.open(collection, model=first, device=device, precision=precision, create=False) as engine,
        progress_shown() as on_progress,
    ):
        return engine.evaluate(rival=second, source=source, on_progress=on_progress)


def _write_report(path: Path, result: Evaluation) -> None:
    """The report and its plots; without matplotlib the report alone, and a line that says so."""
    from mmsearch.render import markdown, plots

    drawn: dict[str, str] = {}
    try:
        drawn = plots.draw(result, path)
    except MissingExtraError as error:
        warn(str(error))
    command = shlex.join(["mmsearch", *sys.argv[1:]])
    text = markdown.report(result, command=command, made_with=_made_with(), plots=drawn)
    path.write_text(text, encoding="utf-8")


def _made_with() -> list[str]:
    """Machine and versions, one line each; no names."""
    from importlib.metadata import PackageNotFoundError, version

    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return [machine, ", ".join(versions)]
