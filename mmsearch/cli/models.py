"""`mmsearch models`: which encoders there are, and fetching the weights of one."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli.console import say
from mmsearch.cli.progress import bytes_shown
from mmsearch.render import report
from mmsearch.render.text import printable

EXAMPLES = """\b
Examples:
  mmsearch models
  mmsearch models pull ViT-B-32/laion2b_s34b_b79k
  mmsearch index --model ViT-B-32/laion2b_s34b_b79k
"""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True, epilog=EXAMPLES)(models)
    group.command("pull", epilog="\b\nExample:\n  mmsearch models pull ViT-B-32/laion2b_s34b_b79k\n")(pull)
    app.add_typer(group, name="models", short_help="List encoders; fetch one.")


def models(context: typer.Context) -> None:
    """List the encoders: name, whether its weights are on this machine, what it is.

    `lite` is built in and works offline. Larger ones find more; their weights are fetched once.
    """
    if context.invoked_subcommand is not None:
        return
    from mmsearch.encoders.registry import available_models

    say(report.models(available_models()))


def pull(name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `mmsearch models` lists.")]) -> None:
    """Fetch the weights of an encoder once. The only command that uses the network."""
    from mmsearch.encoders import registry

    with bytes_shown() as on_progress:
        place = registry.pull(name, on_progress)
    say(f"{printable(name)} is at {printable(str(place))}; use it with: mmsearch index --model {printable(name)}")
