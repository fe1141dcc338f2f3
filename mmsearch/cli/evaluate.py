"""`mmsearch eval`: how well an encoder does on one's own captioned pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json, show_table, warn
from mmsearch.cli.progress import progress_shown
from mmsearch.render import json, table
from mmsearch.render.text import count, printable
from mmsearch.settings import DEFAULT_MODEL, Limits

EXAMPLES = """\b
Examples:
  mmsearch eval ./flickr8k --split ./flickr8k/test.txt
  mmsearch eval ./mine --model ViT-B-32/laion2b_s34b_b79k
"""


def add_to(app: typer.Typer) -> None:
    app.command("eval", short_help="Measure an encoder on your pictures.", epilog=EXAMPLES)(evaluate)


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="A folder with images/ and captions.csv (image,caption) or captions.txt.",
        ),
    ],
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Use only the images that this file names, one a line.",
        ),
    ] = None,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Measure how often captions find their picture (t2i) and pictures one of their captions (i2t).

    R@k is the share of queries, in percent, whose right answer is among the first k. Any number of captions a
    picture. Needs no collection and changes none. Without --model: lite, whatever collections there are.
    """
    from mmsearch import evaluation
    from mmsearch.encoders.registry import load_encoder

    encoder = load_encoder(model or DEFAULT_MODEL, device=device, precision=precision)
    with progress_shown() as on_progress:
        result = evaluation.evaluate(folder, encoder, split=split, limits=Limits(), on_progress=on_progress)
    for failure in result.left_out[:10]:
        warn(f"left out: {printable(str(failure.path))}: {failure.error}")
    if len(result.left_out) > 10:
        warn(f"and {len(result.left_out) - 10:,} more images left out.")
    if as_json:
        show_json(json.evaluation(result))
        return
    show_table(table.figures_table(result))
    images, captions = count(result.images, "picture"), count(result.captions, "caption")
    say(f"{images}, {captions}, {printable(result.space)}")
