"""`mmsearch save` and `mmsearch saved`: queries under a name."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.asking import Asked, asks
from mmsearch.cli.console import say, show_json, show_table
from mmsearch.cli.exits import Exit
from mmsearch.cli.query import title, written
from mmsearch.query import Query, to_json
from mmsearch.render import table
from mmsearch.render.text import printable

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name to ask for later, as in @NAME.")]


def add_to(app: typer.Typer) -> None:
    app.command(
        "save",
        short_help="Keep a query under a name.",
        epilog="\b\nExamples:\n  mmsearch save sunsets 'a beach' 2:sunset\n  mmsearch save sunsets @sunsets --less 3\n"
        "  mmsearch query @sunsets -k 50\n",
    )(save)
    group = typer.Typer(rich_markup_mode=None)
    group.callback(epilog="\b\nExamples:\n  mmsearch saved list\n  mmsearch saved remove sunsets\n")(saved)
    group.command("list", epilog="\b\nExample:\n  mmsearch saved list\n")(list_saved)
    group.command("remove", epilog="\b\nExample:\n  mmsearch saved remove sunsets\n")(remove)
    app.add_typer(group, name="saved", short_help="List, remove saved queries.")


@asks
def save(name: Name, asked: Asked, collection: options.Collection = None) -> None:
    """Keep a query, with filters and feedback, under a name; `mmsearch query @NAME` asks it again.

    What has the name already is replaced.
    """
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        question = asked.query(engine)
        engine.save_query(name.removeprefix("@"), question)
    say(f"{printable(name)}: {printable(_said(question))}")


def _said(query: Query) -> str:
    """All of a query in a line: its terms, and what else is not as usual."""
    kept = to_json(query)
    filters = kept.pop("filters", {}) if query.terms or query.more or query.less else {}
    rest = {name: value for name, value in kept.items() if name not in ("terms", "more", "less", "filters")}
    return "; ".join([title(query), *(f"{name} {written(value)}" for name, value in (filters | rest).items())])


def saved() -> None:
    """The queries that were kept under a name: list, remove."""


def list_saved(as_json: options.AsJson = False, collection: options.Collection = None) -> None:
    """List the saved queries."""
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        kept = engine.saved_queries()
    if as_json:
        show_json({"queries": [{"name": name, "query": to_json(query)} for name, query in kept.items()]})
    elif kept:
        show_table(table.saved_table((name, _said(query)) for name, query in kept.items()))
    else:
        say("No saved queries yet; `mmsearch save NAME ...` keeps one.")


def remove(name: Name, collection: options.Collection = None) -> Exit:
    """Forget a saved query."""
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        engine.forget_query(name.removeprefix("@"))
    say(f"{printable(name)} is forgotten.")
    return Exit.DONE
