"""`mmsearch why`: why a picture is found by a query, or why not."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.asking import Asked, asks
from mmsearch.cli.console import say, show_json
from mmsearch.cli.exits import Exit
from mmsearch.query import image_id
from mmsearch.render import json, report
from mmsearch.settings import Limits

EXAMPLES = """\b
Examples:
  mmsearch why ~/Pictures/car.jpg "a red sports car"
  mmsearch why "#12" "a beach" --after 2024
"""


def add_to(app: typer.Typer) -> None:
    app.command("why", short_help="Why a picture is an answer, or not.", epilog=EXAMPLES)(why)


@asks
def why(
    picture: Annotated[str, typer.Argument(metavar="PATH", help="A picture file, or #12 for an image by its id.")],
    asked: Asked,
    as_json: options.AsJson = False,
    allow_private: options.AllowPrivate = False,
    model: options.Model = None,
    collection: options.Collection = None,
) -> Exit:
    """Say why a picture is found by a query: its rank and what each term has to do with it.

    Or why it is not: which filters leave it out, whether it could not be indexed and for what reason, whether no run
    has seen it. The exit code is 1 when it is no answer.
    """
    from mmsearch.engine import Engine

    limits = Limits(private_addresses=allow_private)
    with Engine.open(collection, model=model, limits=limits, create=False) as engine:
        image = image_id(picture) if picture.startswith("#") else picture
        found = engine.why(image, asked.query(engine))
    if as_json:
        show_json(json.explanation(found))
    else:
        say(report.explanation(found))
    return Exit.DONE if found.state == "found" else Exit.NOTHING_FOUND
