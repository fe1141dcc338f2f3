"""`mmsearch describe`: a picture in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json
from mmsearch.errors import CollectionNotFoundError
from mmsearch.query import image_id
from mmsearch.render import json, report
from mmsearch.render.text import printable
from mmsearch.settings import Limits

EXAMPLES = """\b
Examples:
  mmsearch describe photo.jpg
  mmsearch describe photo.jpg "#12" -k 3
  mmsearch describe photo.jpg --labels mine.txt --json
"""


def add_to(app: typer.Typer) -> None:
    app.command("describe", short_help="Say what a picture shows.", epilog=EXAMPLES)(describe)


def describe(
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE...", help="Picture files or URLs, or #12 for an image of the collection."),
    ],
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many captions and labels at most.")] = 5,
    labels: options.LabelFile = None,
    allow_private: options.AllowPrivate = False,
    as_json: options.AsJson = False,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    collection: options.Collection = None,
) -> None:
    """Say what a picture shows: the captions of the collection that lie nearest, and the labels that fit.

    The percentage says how likely a caption or label is right. The picture need not be indexed; without a collection
    there are labels alone. The first time, encoding the included labels takes some seconds.
    """
    from mmsearch.engine import Engine

    def opened(*, create: bool) -> Engine:
        limits = Limits(private_addresses=allow_private)
        return Engine.open(collection, model=model, device=device, precision=precision, limits=limits, create=create)

    try:
        engine = opened(create=False)
    except CollectionNotFoundError:
        if collection is not None:
            raise
        engine = opened(create=True)  # makes none: describing writes nothing
    found = []
    with engine:
        for picture in pictures:
            named = image_id(picture) if picture.startswith("#") else _place(picture)
            described = engine.describe(named, k=k, labels=labels)
            found.append(json.description(picture, described))
            if not as_json:
                if len(pictures) > 1:
                    typer.secho(printable(picture), bold=True)
                say(report.description(described) + ("\n" if len(pictures) > 1 else ""))
    if as_json:
        show_json({"pictures": found})


def _place(picture: str) -> str | Path:
    """A URL as it is, else a path."""
    return picture if picture.lower().startswith(("http://", "https://")) else Path(picture)
