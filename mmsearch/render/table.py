"""Rows for people: as a Rich table on a terminal, tab-separated through a pipe. The same cells in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.render.cutoff import cut_off
from mmsearch.render.text import count, file_size, printable
from mmsearch.types import Copy, Duplicates, Hit, RootStatus, SearchResult

if TYPE_CHECKING:
    import rich.table

    from mmsearch.evaluation import Evaluation
    from mmsearch.tagging import LabelCount


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a cell, made safe to print, and the file it leads to when a person clicks on it."""

    text: str
    link: Path | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Column names, those of them that hold numbers (aligned right), and the rows; after how many of them a line is
    drawn on a terminal."""

    columns: tuple[str, ...]
    numbers: frozenset[str]
    rows: tuple[tuple[Cell, ...], ...]
    line_after: int | None = None


def hits_table(result: SearchResult, base: Path | None = None, *, explain: bool = False, expand: bool = False) -> Table:
    """rank, score, (caption,) file, and what each term did where that is asked for.

    With `base`, for people: how likely an answer is beside its score (but where words decide as well), its id, paths
    below `base` relative to it, and a line where relevance ends.
    """
    people = base is not None
    by_words = any(share.term == "keywords" for hit in result for share in hit.shares)
    shown = {
        "likely": people and not by_words and any(hit.probability is not None for hit in result),
        "score": not people or any(hit.score for hit in result),
        "id": people,
        "caption": any(hit.caption is not None for hit in result),
        "because": explain,
    }
    heads = ("rank", "likely", "score", "id", "caption", "file", "because")
    columns = tuple(name for name in heads if shown.get(name, True))
    rows: list[tuple[Cell, ...]] = []
    ends = None
    for number, hit in enumerate(result):
        if people and number == cut_off(result):
            ends = len(rows)
        for one in (hit, *(hit.folded if expand else ())):
            cells = {
                "rank": Cell(str(hit.rank) if one is hit else "="),
                "likely": Cell("" if one.probability is None else f"{one.probability:.0%}"),
                "score": Cell(f"{one.score:.3f}"),
                "id": Cell(f"#{one.id}"),
                "caption": Cell(printable(one.caption or "")),
                "file": _place(one, base, folded=0 if expand else len(one.folded)),
                "because": Cell(because(one)),
            }
            rows.append(tuple(cells[name] for name in columns))
    return Table(columns, frozenset({"rank", "likely", "score", "id"}), tuple(rows), line_after=ends)


def because(hit: Hit) -> str:
    """Each term's share of the score."""
    return "; ".join(f"{printable(share.term)} {share.score:+.3f}" for share in hit.shares)


def saved_table(saved: Iterable[tuple[str, str]]) -> Table:
    """name, what it asks."""
    rows = tuple((Cell(printable(name)), Cell(printable(asks))) for name, asks in saved)
    return Table(("name", "query"), frozenset(), rows)


def roots_table(roots: Iterable[RootStatus]) -> Table:
    """path, files, present or away."""
    rows = tuple(
        (Cell(printable(str(root.path)), root.path), Cell(str(root.files)), Cell("present" if root.present else "away"))
        for root in roots
    )
    return Table(("folder", "files", "state"), frozenset({"files"}), rows)


def tags_table(tags: Mapping[str, int]) -> Table:
    """tag, how many pictures have it."""
    rows = tuple((Cell(printable(name)), Cell(str(images))) for name, images in tags.items())
    return Table(("tag", "pictures"), frozenset({"pictures"}), rows)


def label_counts_table(counts: Iterable[LabelCount]) -> Table:
    """label, pictures that have it, how many more and fewer than before, examples."""
    rows = tuple(
        (
            Cell(printable(one.label)),
            Cell(str(one.images)),
            Cell(f"+{one.added}" if one.added else ""),
            Cell(f"-{one.removed}" if one.removed else ""),
            Cell(", ".join(printable(path.name) for path in one.examples)),
        )
        for one in counts
    )
    return Table(("label", "pictures", "new", "gone", "for example"), frozenset({"pictures", "new", "gone"}), rows)


def duplicates_table(found: Duplicates, base: Path | None = None) -> Table:
    """tier, group, advice, pixels, bytes, file; a row for each copy. Paths below `base` are shown relative to it, and
    sizes as people read them."""
    rows = []
    for number, group in enumerate(found, 1):
        for copy in (group.keeper, *group.others):
            kept = copy is group.keeper
            pixels = f"{copy.width} x {copy.height}" if copy.width else ""
            cells = (group.tier, str(number), f"keep: {group.reason}" if kept else "copy", pixels)
            size = str(copy.size_bytes) if base is None else file_size(copy.size_bytes)
            rows.append((*map(Cell, cells), Cell(size), _place(copy, base)))
    return Table(("tier", "group", "advice", "pixels", "size", "file"), frozenset({"group", "size"}), tuple(rows))


def figures_table(evaluation: Evaluation) -> Table:
    """direction, R@1, R@5, R@10 in percent, median rank."""
    columns = ("direction", "R@1", "R@5", "R@10", "median rank")
    rows = []
    for name, figures in (("t2i", evaluation.text_to_image), ("i2t", evaluation.image_to_text)):
        if figures is None:  # a set of labels has none
            continue
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
    for place, row in enumerate(table.rows):
        if place == table.line_after:
            drawn.add_row(*(Text("─" * max(3, len(name)), "dim") for name in table.columns))
        drawn.add_row(*(Text(c.text, Style(link=c.link.as_uri()) if c.link else Style.null()) for c in row))
    return drawn


def _place(hit: Hit | Copy, base: Path | None, *, folded: int = 0) -> Cell:
    """Where the image lies; its key where an application added it; how many copies and near-duplicates there are."""
    if hit.path is None:
        return Cell(printable(hit.key if hit.key is not None else hit.sha256))
    if base is None:
        return Cell(printable(str(hit.path)), hit.path)
    shown = str(hit.path.relative_to(base)) if hit.path.is_relative_to(base) else str(hit.path)
    copies = len(hit.paths) - 1
    more = [count(copies, "copy", "copies")] if copies else []
    more += [f"{folded:,} alike"] if folded else []
    return Cell(printable(shown) + (f"  (+ {', '.join(more)})" if more else ""), hit.path)
