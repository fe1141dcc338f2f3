"""`mmsearch demo`: search the pictures that come with the program, and say what to type next."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mmsearch.cli.console import say
from mmsearch.cli.progress import progress_shown
from mmsearch.render.text import count, printable
from mmsearch.settings import DEFAULT_MODEL, shipped_folder

if TYPE_CHECKING:
    from mmsearch.types import SearchResult

# Sentences and single words, drawings and photographs; each has an answer among the pictures.
QUERIES = (
    "a red sports car",
    "guitar",
    "a cup of coffee",
    "penguin",
    "killer whale",
    "someone riding a bicycle",
    "strawberry",
    "a photographer with his camera",
    "a hot air balloon",
)
_SHOWN = 3  # answers a query

NEXT = """\
Now your own pictures:

  mmsearch index ~/Pictures
  mmsearch query "a red sports car"
  mmsearch query --like ~/Pictures/holiday.jpg

`mmsearch query --help` has more. The built-in encoder is small; `mmsearch models` names larger
ones that find more."""


def add_to(app: typer.Typer) -> None:
    app.command("demo", short_help="Try it on the pictures included.", epilog="\b\nExample:\n  mmsearch demo\n")(demo)


def demo() -> None:
    """Try it: index the pictures that come with mmsearch, and answer some queries.

    Uses a temporary collection that is removed afterwards. Nothing is downloaded.
    """
    from mmsearch.engine import Engine

    folder = shipped_folder("demo")
    described = _descriptions(folder / "captions.csv")
    with (
        tempfile.TemporaryDirectory(prefix="mmsearch-demo-") as collection,
        Engine.open(collection, model=DEFAULT_MODEL) as engine,
    ):
        with progress_shown() as on_progress:
            report = engine.index([folder / "images"], on_progress=on_progress)
        say(f"{count(report.new, 'picture')} indexed in {report.seconds:.1f} s: {printable(str(folder / 'images'))}")
        say("The words on the right are the demo's own list of what each picture shows; the search never sees them.")
        for text in QUERIES:
            say()
            typer.secho(f'mmsearch query "{text}"', bold=True)
            say(_answer(engine.search(text, k=_SHOWN), described))
    say()
    say(NEXT)


def _answer(result: SearchResult, described: dict[str, str]) -> str:
    """rank, score, file name, and what the picture shows."""
    lines = []
    for hit in result:
        name = hit.path.name if hit.path else hit.sha256
        lines.append(f"  {hit.rank}  {hit.score:.3f}  {name:<26}  {described.get(name, '')}".rstrip())
    return "\n".join(lines)


def _descriptions(table: Path) -> dict[str, str]:
    """File name -> the sentence of the demo's list."""
    with table.open(encoding="utf-8", newline="") as file:
        return {row["image"]: row["caption"] for row in csv.DictReader(file)}
