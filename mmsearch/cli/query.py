"""`mmsearch query`: pictures by meaning."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, show_json, show_raw, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.errors import UsageError
from mmsearch.query import Query, Term
from mmsearch.render import json, table
from mmsearch.types import Hit, Kind

EXAMPLES = """\b
Examples:
  mmsearch query "a red sports car"
  mmsearch query "a dog" "snow"          both together
  mmsearch query --like holiday.jpg -k 20
  mmsearch query --like holiday.jpg --find captions
  mmsearch query penguin -0 | xargs -0 cp -t /tmp
  mmsearch query penguin --json
"""


def add_to(app: typer.Typer) -> None:
    app.command("query", short_help="Find pictures by what they show.", epilog=EXAMPLES)(query)


def query(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT...", help="What to look for; put a sentence in quotes.")
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            "--like",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Find what resembles this picture; it need not be indexed. Can be repeated.",
        ),
    ] = None,
    find: Annotated[Kind, typer.Option("--find", help="Find pictures, or the captions of pictures.")] = "images",
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many answers at most.")] = 10,
    as_json: options.AsJson = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print paths alone, one a line.")] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Print paths alone, each ended by a NUL byte: for xargs -0.")
    ] = False,
    model: options.Model = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    collection: options.Collection = None,
) -> Exit:
    """Find pictures by what they show.

    Several texts and pictures are looked for together. The score says how near an answer is to the query; it ranks
    answers and is not a probability.

    Through a pipe an answer is one line of rank, score and path (for captions: rank, score, caption, path), separated
    by tabs. The exit code is 1 when nothing was found.
    """
    from mmsearch.engine import Engine

    if as_json and (paths or null):
        raise UsageError("--json and --paths do not go together; the JSON has the paths.")
    terms = [Term(text=text) for text in texts or ()] + [Term(picture=path) for path in like or ()]
    asked = Query(tuple(terms), find=find, k=k)
    with Engine.open(collection, model=model, device=device, precision=precision, create=False) as engine:
        result = engine.search(asked)
    if result.notice:
        warn(result.notice)
    if as_json:
        show_json(json.search_result(result))
    elif paths or null:
        show_raw(_paths(result, b"\0" if null else b"\n"))
    elif result.hits:
        show_table(table.hits_table(result, Path.cwd() if on_terminal() else None))
        if on_terminal() and len(texts or ()) > 1 and not any(" " in text for text in texts or ()):
            warn(f"these are the answers to {len(texts or ())} texts together; quotes make them one sentence.")
    if not result.hits:
        what = "pictures" if find == "images" else "captions"
        warn(f"nothing found: the collection has no {what} yet; `mmsearch index --help` says how to add some.")
        return Exit.NOTHING_FOUND
    return Exit.DONE


def _paths(hits: Iterable[Hit], end: bytes) -> bytes:
    """The bytes of the file names as the file system has them."""
    return b"".join(os.fsencode(hit.path) + end for hit in hits if hit.path is not None)
