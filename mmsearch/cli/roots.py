"""`mmsearch roots`: the folders of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_table
from mmsearch.render import table
from mmsearch.render.text import count, printable


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(epilog="\b\nExamples:\n  mmsearch roots list\n  mmsearch roots relocate /media/old /media/new\n")(
        roots
    )
    group.command("list", epilog="\b\nExample:\n  mmsearch roots list\n")(list_roots)
    group.command("remove", epilog="\b\nExample:\n  mmsearch roots remove ~/Pictures/scans\n")(remove)
    group.command("relocate", epilog="\b\nExample:\n  mmsearch roots relocate /media/old /media/new\n")(relocate)
    app.add_typer(group, name="roots", short_help="List, remove, relocate folders.")


def roots() -> None:
    """The folders whose pictures belong to a collection: list, remove, relocate."""


def list_roots(collection: options.Collection = None) -> None:
    """List the folders, how many files each has, and whether it can be read now.

    Through a pipe: path, files, state, separated by tabs.
    """
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        show_table(table.roots_table(engine.status().roots))


def remove(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that `roots list` shows.")],
    collection: options.Collection = None,
) -> None:
    """Take a folder out of the collection. The pictures themselves are not touched."""
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        files = engine.remove_root(path)
    say(f"{printable(str(path))}: {count(files, 'file')} forgotten; the pictures themselves are untouched.")


def relocate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The folder as `roots list` shows it.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Where it is now.")],
    collection: options.Collection = None,
) -> None:
    """Tell the collection that a folder is somewhere else now. Nothing is encoded again."""
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        files = engine.relocate(old, new)
    say(f"{printable(str(old))} is now {printable(str(new))}: {count(files, 'file')}.")
