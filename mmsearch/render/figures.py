"""Figures of an evaluation and of a comparison of two models -> tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmsearch.render.table import Cell, Table
from mmsearch.render.text import count, printable

if TYPE_CHECKING:
    from mmsearch.comparing import ChangedQuery, Comparison, Reach
    from mmsearch.evaluation import Evaluation, IndexCheck
    from mmsearch.judging import Difference, LabelFigures, Measure
    from mmsearch.types import Hit

LABELS_SHOWN = 5

DIRECTIONS = {
    "t2i": "text to image",
    "i2t": "image to text",
    "i2i": "image to others of its label",
}


def measures_table(measures: Iterable[Measure]) -> Table:
    """direction, measure, value, and the ends of its 95 % interval (`-` where the queries are too few)."""
    rows = tuple(
        tuple(map(Cell, (one.direction, one.name, f"{one.value:.1f}", *_ends(one.low, one.high)))) for one in measures
    )
    columns = ("direction", "measure", "%", "95 % from", "to")
    return Table(columns, frozenset(columns[2:]), rows)


def differences_table(evaluation: Evaluation) -> Table:
    """direction, measure, both values, what the rival has over the first in points, its 95 % interval, p."""
    assert evaluation.rival is not None
    names = ("first", "second", "difference")
    return changes_of(evaluation.measures, evaluation.rival.measures, evaluation.differences, names)


def changes_of(
    before: Iterable[Measure], after: Iterable[Measure], changes: Iterable[Difference], names: tuple[str, str, str]
) -> Table:
    """Two columns of values and what lies between them; names: of these three columns."""
    rows = []
    for first, second, change in zip(before, after, changes, strict=True):
        values = (f"{first.value:.1f}", f"{second.value:.1f}", f"{change.value:+.1f}")
        ends = _ends(change.low, change.high, signed=True)
        p = "-" if change.p is None else f"{change.p:.4f}"
        rows.append(tuple(map(Cell, (change.direction, change.name, *values, *ends, p))))
    columns = ("direction", "measure", *names, "95 % from", "to", "p")
    return Table(columns, frozenset(columns[2:]), tuple(rows))


def summary(evaluation: Evaluation) -> str:
    """What was compared: pictures, captions or labels, the encoder."""
    texts = count(len(evaluation.labels), "label") if evaluation.labels else count(evaluation.captions, "caption")
    return f"{count(evaluation.images, 'picture')}, {texts}, {printable(evaluation.space)}"


def index_line(check: IndexCheck) -> str:
    """How complete the index is, as measured, and what it says of itself."""
    return (
        f"index recall@{check.k} {check.recall:.3f} ({'exact' if check.exact else 'approximate'}, "
        f"{count(check.queries, 'query', 'queries')})"
    )


def verdicts(evaluation: Evaluation) -> list[str]:
    """For each direction one sentence about its first measure: which model finds more, or that none is shown to."""
    assert evaluation.rival is not None
    lines = []
    told: set[str] = set()
    for change in evaluation.differences:
        if change.direction not in told:
            told.add(change.direction)
            lines.append(_verdict(change, evaluation.space, evaluation.rival.space))
    return lines


def _verdict(change: Difference, first: str, second: str) -> str:
    name = f"{DIRECTIONS[change.direction]}, {change.name}"
    if change.p is None or change.low is None or change.high is None:
        return f"too few queries to tell: {name} {change.value:+.1f} points"
    p = f"p = {change.p:.2g}" if change.p >= 0.001 else "p < 0.001"
    if not change.significant:
        return f"no difference shown: {name} {change.value:+.1f} points ({change.low:.1f} to {change.high:.1f}), {p}"
    better, sign = (second, 1) if change.value > 0 else (first, -1)
    low, high = sorted((sign * change.low, sign * change.high))
    return f"{printable(better)} finds more: {name} {abs(change.value):+.1f} points ({low:.1f} to {high:.1f}), {p}"


def weakest(labels: Iterable[LabelFigures]) -> str:
    """The labels that find their pictures worst, worst first."""
    ordered = sorted(labels, key=lambda one: (one.average_precision, one.label))[:LABELS_SHOWN]
    return ", ".join(f"{printable(one.label)} {one.average_precision:.0f}" for one in ordered)


# --- two models -------------------------------------------------------------------------------------------------


def changes_table(comparison: Comparison) -> Table:
    """saved query, how many answers stay, rank-biased overlap, how many come and go."""
    rows = tuple(
        tuple(
            map(
                Cell,
                (
                    printable(one.name),
                    f"{one.stay} of {one.of}",
                    f"{one.overlap:.2f}",
                    str(len(one.come)),
                    str(len(one.go)),
                ),
            )
        )
        for one in comparison.queries
        if one.error is None
    )
    columns = ("saved query", "stay", "overlap", "come", "go")
    return Table(columns, frozenset(columns[1:]), rows)


def reach(reach: Reach) -> str:
    """How far a model has come."""
    state = "queries use it" if reach.current else "queries do not use it yet" if reach.encoded < reach.images else ""
    whole = "all" if reach.encoded >= reach.images else f"{reach.encoded:,} of"
    return f"{printable(reach.encoder)}: {whole} {count(reach.images, 'picture')}{f'; {state}' if state else ''}"


def coming_and_going(changed: ChangedQuery) -> list[str]:
    """A line for each picture that comes or goes, best first: `+` and its new rank, `-` and its old one."""
    lines = [f"  + {hit.rank:>3}  {_name(hit)}" for hit in changed.come]
    return lines + [f"  - {hit.rank:>3}  {_name(hit)}" for hit in changed.go]


def _name(hit: Hit) -> str:
    if hit.caption is not None:
        return printable(hit.caption)
    return printable(str(hit.path) if hit.path is not None else hit.key if hit.key is not None else f"#{hit.id}")


def _ends(low: float | None, high: float | None, *, signed: bool = False) -> tuple[str, str]:
    if low is None or high is None:
        return "-", "-"
    return (f"{low:+.1f}", f"{high:+.1f}") if signed else (f"{low:.1f}", f"{high:.1f}")
