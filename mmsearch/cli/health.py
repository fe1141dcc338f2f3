"""`mmsearch status` and `mmsearch verify`: what a collection holds, and whether it is sound."""

from __future__ import annotations

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json, warn
from mmsearch.cli.exits import Exit
from mmsearch.render import json, report
from mmsearch.render.text import count


def add_to(app: typer.Typer) -> None:
    app.command(
        "status",
        short_help="Say what a collection holds.",
        epilog="\b\nExamples:\n  mmsearch status\n  mmsearch status -c ./trips --json\n",
    )(status)
    app.command(
        "verify",
        short_help="Check that a collection is sound.",
        epilog="\b\nExamples:\n  mmsearch verify\n  mmsearch verify -c ./trips --json\n",
    )(verify)


def status(as_json: options.AsJson = False, collection: options.Collection = None) -> None:
    """Say what a collection holds: folders, pictures, captions, encoders, and the files that failed, with the reason.

    A file that failed is tried again when it changes.
    """
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        state = engine.status()
    if as_json:
        show_json(json.status(state))
    else:
        say(report.status(state))


def verify(as_json: options.AsJson = False, collection: options.Collection = None) -> Exit:
    """Check a collection from end to end: the catalog, every stored vector, the index files, a real query.

    The exit code is 4 when something is wrong; each problem comes with what to do about it.
    """
    from mmsearch.engine import Engine

    with Engine.open(collection, create=False) as engine:
        found = engine.verify()
    if as_json:
        show_json(json.verification(found))
    elif found.sound:
        vectors, files = count(found.checked_vectors, "vector"), count(found.checked_files, "file")
        say(f"Sound: {vectors} and the records of {files} checked.")
    else:
        for problem in found.problems:
            warn(problem)
    return Exit.DONE if found.sound else Exit.UNUSABLE
