"""`mmsearch compare`: what changes when queries go over to another model."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli import evaluate, options
from mmsearch.cli.console import on_terminal, say, show_json, show_table, warn
from mmsearch.cli.exits import Exit
from mmsearch.cli.progress import progress_shown
from mmsearch.render import figures, json
from mmsearch.render.text import printable

EXAMPLES = """\b
Examples:
  mmsearch compare lite ViT-B-32/laion2b_s34b_b79k
  mmsearch compare lite ./my-model -c trips -k 20
"""

HOW_TO_SAVE = 'there are no saved queries to compare; `mmsearch save NAME "a query"` keeps one.'


def add_to(app: typer.Typer) -> None:
    app.command("compare", short_help="What another model changes.", epilog=EXAMPLES)(compare)


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The model that queries use now.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The one to compare it with; index with it before.")],
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many answers of each query to look at.")] = 10,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
    collection: options.Collection = None,
) -> Exit:
    """Show how the answers to saved queries change from one model to another, and which of them finds more.

    The collection needs vectors of both: `mmsearch index --model NEW` makes them while queries go on using OLD. Only
    pictures that both have encoded are compared. `stay` counts the answers that both give; `overlap` (rank-biased, 0 to
    1) also looks at their order. Then both are measured on the collection's own captions or folder names, as
    `mmsearch eval` does. The exit code is 1 when there is nothing to compare by.
    """
    from mmsearch.engine import Engine

    with (
        Engine.open(collection, device=device, precision=precision, create=False) as engine,
        progress_shown() as on_progress,
    ):
        result = engine.compare(old, new, k=k, on_progress=on_progress)
    if as_json:
        show_json(json.comparison(result))
    else:
        for reach in (result.old, result.new):
            say(figures.reach(reach))
        if any(one.error is None for one in result.queries):
            show_table(figures.changes_table(result))
        for changed in result.queries:
            if on_terminal() and (changed.come or changed.go):
                say(printable(changed.name))
                for line in figures.coming_and_going(changed):
                    say(line)
        if result.evaluation is not None:
            evaluate.show(result.evaluation)
    for changed in result.queries:
        if changed.error is not None:
            warn(f"the saved query {printable(changed.name)} cannot be asked: {changed.error}")
    if not result.queries:
        warn(HOW_TO_SAVE)
    if result.no_evaluation is not None:
        warn(result.no_evaluation)
    return Exit.DONE if result.queries or result.evaluation is not None else Exit.NOTHING_FOUND
