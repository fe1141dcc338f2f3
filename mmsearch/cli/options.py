"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.errors import UsageError


def before_the_command(context: typer.Context) -> str | None:
    """The collection of `mmsearch -c trips query beach`."""
    before: str | None = context.find_root().params.get("collection")
    return before


def _given_before_the_command(context: typer.Context, value: str | None) -> str | None:
    """`mmsearch -c trips query beach` means the same as `mmsearch query -c trips beach`."""
    return before_the_command(context) if value is None else value


Collection = Annotated[
    str | None,
    typer.Option(
        "--collection",
        "-c",
        metavar="NAME|DIR",
        callback=_given_before_the_command,
        help="The collection to use: a name, or a folder where it has a path separator. "
        "Without it: MMSEARCH_COLLECTION, else `default`.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The encoder: `lite`, or one that `mmsearch models` describes. Without it: the collection's current one.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="Where a large model runs: auto, cpu, cuda, cuda:1, mps.")
]
Precision = Annotated[
    str, typer.Option("--precision", metavar="NAME", help="How a large model calculates: auto, fp32, bf16, fp16.")
]
AllowPrivate = Annotated[bool, typer.Option("--allow-private", help="Let a picture URL lead into the local network.")]
Poll = Annotated[
    bool | None,
    typer.Option(
        "--poll/--no-poll",
        show_default=False,
        help="With --watch: look at the folders again and again, or rely on the system's events. Without, as their "
        "file systems need.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A list of your own: one label a line, or label,prompt. Without it: 700 common things.",
    ),
]


def check_poll(poll: bool | None, watch: bool) -> None:
    if poll is not None and not watch:
        raise UsageError("--poll and --no-poll say how to watch; add --watch.")
