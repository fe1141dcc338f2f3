"""Rows for people: as a Rich table on a terminal, tab-separated through a pipe. The same cells in both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.render.text import count, printable
from mmsearch.types import Hit, RootStatus

if TYPE_CHECKING:
    import rich.table

    from mmsearch.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell, made safe to print, and the file it leads to when a person clicks on it."""

    text: str
    link: Path | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Column names, those of them that hold numbers (aligned right), and the rows."""

    columns: tuple[str, ...]
    numbers: frozenset[str]
    rows: tuple[tuple[Cell, ...], ...]


def hits_table(hits: Iterable[Hit], base: Path | None = None) -> Table:
    """rank, score, file; for caption hits rank, score, caption, file. Paths below `base` are shown relative to it."""
    hits = tuple(hits)
    captions = any(hit.caption is not None for hit in hits)
    rows = []
    for hit in hits:
        cells = [Cell(str(hit.rank)), Cell(f"{hit.score:.3f}")]
        if captions:
            cells.append(Cell(printable(hit.caption or "")))
        rows.append((*cells, _place(hit, base)))
    columns = ("#", "score", "caption", "file") if captions else ("#", "score", "file")
    return Table(columns, frozenset({"#", "score"}), tuple(rows))


def roots_table(roots: Iterable[RootStatus]) -> Table:
    """path, files, present or away."""
    rows = tuple(
        (Cell(printable(str(root.path)), root.path), Cell(str(root.files)), Cell("present" if root.present else "away"))
        for root in roots
    )
    return Table(("folder", "files", "state"), frozenset({"files"}), rows)


def figures_table(evaluation: Evaluation) -> Table:
    """direction, R@1, R@5, R@10 in percent, median rank."""
    columns = ("direction", "R@1", "R@5", "R@10", "median rank")
    rows = []
    for name, figures in (("t2i", evaluation.text_to_image), ("i2t", evaluation.image_to_text)):
        recalls = (figures.recall_at_1, figures.recall_at_5, figures.recall_at_10)
        cells = (name, *(f"{recall:.1f}" for recall in recalls), f"{figures.median_rank:g}")
        rows.append(tuple(map(Cell, cells)))
    return Table(columns, frozenset(columns[1:]), tuple(rows))


def as_text(table: Table) -> str:
    """One line a row, cells separated by tabs, no header: for `cut`, `awk` and spreadsheets."""
    return "".join("\t".join(cell.text for cell in row) + "\n" for row in table.rows)


def as_rich(table: Table) -> rich.table.Table:
    """A frameless table that folds long cells: nothing is cut off, however narrow the terminal."""
    from rich.style import Style
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in table.columns:
        number = name in table.numbers
        drawn.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(c.text, Style(link=c.link.as_uri()) if c.link else Style.null()) for c in row))
    return drawn


def _place(hit: Hit, base: Path | None) -> Cell:
    """Where the image lies; its key where an application added it; how many copies there are besides."""
    if hit.path is None:
        return Cell(printable(hit.key if hit.key is not None else hit.sha256))
    below = base is not None and hit.path.is_relative_to(base)
    shown = str(hit.path.relative_to(base)) if base is not None and below else str(hit.path)
    copies = f"  (+ {count(len(hit.paths) - 1, 'copy', 'copies')})" if base is not None and len(hit.paths) > 1 else ""
    return Cell(printable(shown) + copies, hit.path)
