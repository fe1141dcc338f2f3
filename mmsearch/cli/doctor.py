"""`mmsearch doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

from pathlib import Path

import typer

from mmsearch.cli import options
from mmsearch.cli.console import say, show_json
from mmsearch.cli.exits import Exit
from mmsearch.render import json, report
from mmsearch.settings import collection_folder
from mmsearch.types import Finding


def add_to(app: typer.Typer) -> None:
    app.command(
        "doctor",
        short_help="Check the installation and a collection.",
        epilog="\b\nExamples:\n  mmsearch doctor\n  mmsearch doctor -c ./trips --json\n",
    )(doctor)


def doctor(as_json: options.AsJson = False, collection: options.Collection = None) -> Exit:
    """Check everything that searches need: collection, disk, index, model, extras, versions. Nothing is changed.

    Each finding says what to do about it. The exit code is 4 when something is broken; warnings do not count. It
    takes a second or two; `mmsearch verify` takes longer and compares every stored byte.
    """
    found = _findings(collection_folder(collection))
    if as_json:
        show_json(json.findings(found))
    else:
        say(report.findings(found))
    return Exit.UNUSABLE if any(one.state == "problem" for one in found) else Exit.DONE


def _findings(folder: Path) -> tuple[Finding, ...]:
    try:
        from mmsearch.checkup import check
    except ImportError:  # a library of the program's own is broken: which one is among these findings
        from mmsearch import installation

        return (*installation.extras(), *installation.versions())
    return check(folder)
