"""Hits -> pictures in a terminal, through textual-image: kitty's graphics, sixel (iTerm2, WezTerm, foot, Konsole,
xterm, VS Code, Windows Terminal, tmux), else coloured half blocks.

Imported only for `--preview`: importing textual-image asks the terminal what it can do and waits a moment for the
answer, so that stdin and stdout have to be one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, ConsoleRenderable
from rich.rule import Rule
from rich.text import Text

from mmsearch import files
from mmsearch.decode import decode
from mmsearch.errors import PictureError
from mmsearch.render.cutoff import cut_off, summary
from mmsearch.render.table import hits_table
from mmsearch.render.text import printable
from mmsearch.settings import Limits
from mmsearch.types import Hit, SearchResult

# High enough to recognise a picture in half blocks, 32 of them; low enough for two or three on a screen.
ROWS = 16
# Pixels of the short side at most where a terminal draws real pixels: ROWS of the tallest common cells.
_TARGET = 256


def show(console: Console, result: SearchResult, base: Path | None, limits: Limits) -> None:
    """Each hit's picture with its line beneath, one after the other as they are read; a line where relevance ends,
    and how many are relevant. base: paths below it are shown relative to it."""
    rows = min(ROWS, max(1, console.height - 2))  # a picture higher than the screen would scroll away while it is drawn
    lines = _lines(result, base)
    ends = cut_off(result)
    for number, hit in enumerate(result):
        if number == ends and number:
            console.print(Rule("less likely from here on", style="dim"))
        console.print(_drawn(hit, limits), width=console.width, height=rows)
        console.print(next(lines))
        console.print()
    if result.relevant:
        console.print(summary(result))


def _drawn(hit: Hit, limits: Limits) -> ConsoleRenderable:
    # It warns with a traceback where a terminal does not tell the size of its cells, and goes on with a common one.
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    from textual_image.renderable import Image

    if hit.path is None:
        return Text("(an application added it without a file)", "dim")
    try:
        data = files.read(hit.path, limits.max_megabytes)[0]
        picture = decode(data, target=_TARGET, limits=limits).picture
    except PictureError as error:
        return Text(f"(cannot be shown: {printable(str(error))})", "dim")
    return Image(picture, width="auto", height="auto")


def _lines(result: SearchResult, base: Path | None) -> Iterator[Text]:
    """`1   84%   0.310   cars/red.jpg`: the rows of the table, each cell as wide as its column, links included."""
    table = hits_table(result, base)
    for row in table.rows:
        line = Text(overflow="fold")
        for name, cell in zip(table.columns, row, strict=True):
            wide = max(len(other[table.columns.index(name)].text) for other in table.rows)
            text = cell.text.rjust(wide) if name in table.numbers else cell.text
            line.append(text, f"link {cell.link.as_uri()}" if cell.link else "bold" if name == "rank" else None)
            line.append("  ")
        line.rstrip()
        yield line
