"""An evaluation -> a Markdown report: what was measured, with what, the figures, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from mmsearch.render import figures, table
from mmsearch.render.text import printable

if TYPE_CHECKING:
    from mmsearch.evaluation import Evaluation

_LEFT_OUT_SHOWN = 20


def report(
    evaluation: Evaluation, *, command: str, made_with: Sequence[str], plots: Mapping[str, str] | None = None
) -> str:
    """command: what was typed. made_with: one line each about machine and versions. plots: title -> file name, beside
    the report."""
    title = f"What `{_inline(evaluation.space)}` finds"
    if evaluation.rival is not None:
        title = f"What `{_inline(evaluation.space)}` and `{_inline(evaluation.rival.space)}` find"
    parts = [
        f"# {title}",
        f"Measured on {_escaped(evaluation.about)}: {_escaped(figures.summary(evaluation))}.",
        "\n".join(f"- {_escaped(line)}" for line in (*made_with, f"Command: {command}")),
        *_results(evaluation),
        *(f"![{name}]({quote(file)})" for name, file in (plots or {}).items()),
        *_labels(evaluation),
        *_left_out(evaluation),
        _HOW,
    ]
    return "\n\n".join(parts) + "\n"


def _results(evaluation: Evaluation) -> list[str]:
    parts = ["## Figures", "In percent.", _table(figures.measures_table(evaluation.measures))]
    if evaluation.text_to_image is not None:
        parts.append(_table(table.figures_table(evaluation)))
    if evaluation.index is not None:
        parts.append(f"{figures.index_line(evaluation.index).capitalize()}.")
    if evaluation.rival is not None:
        first, second = _inline(evaluation.space), _inline(evaluation.rival.space)
        parts += [
            "## Side by side",
            f"First: `{first}`. Second: `{second}`. The difference is what the second has over the first, in points.",
            "\n".join(f"- {_escaped(line)}" for line in figures.verdicts(evaluation)),
            _table(figures.differences_table(evaluation)),
        ]
    return parts


def _labels(evaluation: Evaluation) -> list[str]:
    if not evaluation.labels:
        return []
    ordered = sorted(evaluation.labels, key=lambda one: (one.average_precision, one.label))
    rows = tuple(
        tuple(map(table.Cell, (one.label, str(one.images), f"{one.average_precision:.1f}"))) for one in ordered
    )
    columns = ("label", "pictures", "average precision")
    shown = table.Table(columns, frozenset(columns[1:]), rows)
    return ["## Labels", "Those that find their pictures worst come first.", _table(shown)]


def _left_out(evaluation: Evaluation) -> list[str]:
    if not evaluation.left_out:
        return []
    lines = [f"- {_escaped(f'{one.path}: {one.error}')}" for one in evaluation.left_out[:_LEFT_OUT_SHOWN]]
    more = len(evaluation.left_out) - _LEFT_OUT_SHOWN
    return ["## Left out", "\n".join([*lines, *([f"- and {more:,} more"] if more > 0 else [])])]


_HOW = """\
## How to read it

t2i: a text looks for its picture; i2t: a picture looks for its captions; i2i: a picture looks for others of its label.
R@k is the share of queries whose right answer is among the first k; MRR the mean of 1 / rank of the right one; nDCG@10
counts right answers among the first ten, higher ones more; mAP is the mean, over queries, of how pure the ranking is
down to each right answer; P@10 the share of right ones among the first ten.

Intervals are 95 % percentile bootstrap intervals over queries, all captions of a picture drawn together; p is from a
two-sided sign-flip permutation test on the same queries. An interval of no width (at 0 or 100) means that no query went
the other way, not that none ever will."""


def _table(rows: table.Table) -> str:
    lines = [
        rows.columns,
        tuple("---:" if name in rows.numbers else "---" for name in rows.columns),
        *(tuple(_escaped(cell.text) for cell in row) for row in rows.rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Plain text: what people called their files and labels must not become markup."""
    line = " ".join(printable(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in line)


def _inline(text: str) -> str:
    return printable(text).replace("`", "'")
