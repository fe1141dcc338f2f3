"""`mmsearch duplicates`: pictures that are there more than once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

from mmsearch.cli import options
from mmsearch.cli.console import on_terminal, say, show_json, show_raw, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.progress import progress_shown
from mmsearch.errors import UsageError
from mmsearch.render import json, report, table
from mmsearch.types import Duplicates, Tier

EXAMPLES = """\b
Examples:
  mmsearch duplicates
  mmsearch duplicates --tier exact --json
  mmsearch duplicates --tier semantic --similarity 0.95
  mmsearch duplicates -0 | xargs -0 mv -t ~/doubles
"""


def add_to(app: typer.Typer) -> None:
    app.command("duplicates", short_help="Find pictures that are there twice.", epilog=EXAMPLES)(duplicates)


def duplicates(
    tiers: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            metavar="TIER",
            help="exact: the same bytes. near: the same picture, re-encoded, resized or brightened. "
            "semantic: alike, as cropped copies and series are. Can be repeated; without it, exact and near.",
        ),
    ] = None,
    similarity: Annotated[
        float | None,
        typer.Option(
            "--similarity", metavar="N", help="The least cosine of the semantic tier, 0.9 by default; more is stricter."
        ),
    ] = None,
    as_json: options.AsJson = False,
    paths: Annotated[
        bool, typer.Option("--paths", help="Print the paths of all but the keepers alone, one a line.")
    ] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="As --paths, each ended by a NUL byte: for xargs -0.")
    ] = False,
    model: options.Model = None,
    collection: options.Collection = None,
) -> Exit:
    """Find pictures that are there more than once, and suggest which to keep. Nothing is deleted.

    In a group every two pictures are alike. A pair is in one tier alone; semantic compares only what near would keep,
    so that of each group something stays even if all but the keepers of all tiers go. Files that changed since they
    were indexed are left out.

    Through a pipe each picture is one line of tier, group, `keep: why` or `copy`, size in pixels, bytes, path,
    separated by tabs. The exit code is 1 when there are none.
    """
    from mmsearch.engine import Engine

    if as_json and (paths or null):
        raise UsageError("--json and --paths do not go together; the JSON has the paths.")
    chosen = cast(list[Tier], tiers or ["exact", "near"])  # Typer knows no lists of these; the engine checks them
    with (
        Engine.open(collection, model=model, create=False) as engine,
        progress_shown() as on_progress,
    ):
        found = engine.duplicates(chosen, similarity=similarity, on_progress=on_progress)
    for notice in found.notices:
        warn(notice)
    if as_json:
        show_json(json.duplicates(found))
    elif paths or null:
        show_raw(_all_but_keepers(found, b"\0" if null else b"\n"))
    elif found.groups:
        show_table(table.duplicates_table(found, Path.cwd() if on_terminal() else None))
        if on_terminal():
            say(report.duplicates(found))
    if not found.groups:
        warn(f"no duplicates found ({', '.join(chosen)}).")
        return Exit.NOTHING_FOUND
    return Exit.DONE


def _all_but_keepers(found: Duplicates, end: bytes) -> bytes:
    """The bytes of the file names as the file system has them, each once."""
    paths = dict.fromkeys(path for group in found for copy in group.others for path in copy.paths)
    return b"".join(os.fsencode(path) + end for path in paths)
