"""The Typer app: all commands put together, and one command line run through it.

A command is a function that returns its exit code, or nothing for 0. It raises errors; only `main` catches them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mmsearch import __version__
from mmsearch.cli import (
    compare,
    demo,
    describe,
    doctor,
    duplicates,
    evaluate,
    health,
    index,
    models,
    query,
    roots,
    saved,
    serve,
    tag,
    train,
    why,
)
from mmsearch.cli.console import say
from mmsearch.cli.exits import Exit
from mmsearch.cli.options import Collection
from mmsearch.errors import UsageError

EXAMPLES = """\b
Examples:
  mmsearch demo
  mmsearch index ~/Pictures
  mmsearch query "a red sports car"

\b
Exit codes: 0 done, 1 nothing found, 2 usage,
3 some files failed, 4 collection or model error,
5 not promoted, 70 a bug of ours, 130 after Ctrl-C.
"""


def _version(wanted: bool) -> None:
    if wanted:
        say(f"mmsearch {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
]

# Plain help: Rich would cost every command its import, and would frame errors.
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def mmsearch(
    context: typer.Context,
    collection: Collection = None,  # noqa: ARG001 - read by options.Collection through the context
    version: Version = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Find pictures by meaning. Works offline; originals are never changed."""
    if context.invoked_subcommand is None:
        say(context.get_help())


for group in (
    *(index, query, describe, tag, duplicates, why, saved, serve),
    *(health, doctor, roots, models, evaluate, compare, train, demo),
):
    group.add_to(app)


def run(arguments: Sequence[str]) -> int:
    """One command line, without the program's name -> its exit code. UsageError for what Typer cannot parse."""
    command = typer.main.get_command(app)
    try:
        if "_MMSEARCH_COMPLETE" in os.environ:
            command.main(list(arguments), prog_name="mmsearch")  # a shell asks for completions; never returns
        with command.make_context("mmsearch", list(arguments)) as context:
            code = command.invoke(context)
            sys.stdout.flush()
            return int(code or Exit.DONE)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        where = getattr(error, "ctx", None)
        place = where.command_path if where else "mmsearch"
        raise UsageError(f"{error.format_message().rstrip('.')}. Try: {place} --help") from error
