"""Where output goes: data to stdout, everything said about it to stderr. Rich only for tables on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from mmsearch.render import json, table
from mmsearch.render.text import printable


def on_terminal() -> bool:
    """Whether a person reads stdout (else it is a pipe or a file)."""
    return sys.stdout.isatty()


def say(text: str = "") -> None:
    """Lines of data or of an answer, on stdout."""
    sys.stdout.write(text + "\n")


def warn(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    sys.stdout.flush()  # so that the order is right where both go to one place
    sys.stderr.write(f"mmsearch: {printable(' '.join(message.split()))}\n")
    sys.stderr.flush()


def show_table(rows: table.Table) -> None:
    """A Rich table on a terminal, tab-separated lines through a pipe."""
    if not on_terminal():
        sys.stdout.write(table.as_text(rows))
        return
    from rich.console import Console

    Console().print(table.as_rich(rows))


def show_json(data: dict[str, Any]) -> None:
    say(json.dumps(data))


def show_raw(data: bytes) -> None:
    """Bytes as they are: file names need not be text."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
