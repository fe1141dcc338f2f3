"""Pictures of an evaluation, drawn by matplotlib (extra `plots`): recall by depth, ranks, intervals of two models."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import MissingExtraError
from mmsearch.render.figures import DIRECTIONS

if TYPE_CHECKING:
    from mmsearch.evaluation import Evaluation

# Two colours and two dash patterns that people who see no red or green tell apart (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00")
_DEPTH = 50
_LABELS = 30


def draw(evaluation: Evaluation, report: Path) -> dict[str, str]:
    """Write the plots as PNG beside `report`, named after it -> title: file name. MissingExtraError, OSError."""
    try:
        import matplotlib  # noqa: F401 - whether it is there
    except ImportError as error:
        raise MissingExtraError("The report has no plots: install them with pip install 'mmsearch[plots]'.") from error
    both = [evaluation] if evaluation.rival is None else [evaluation, evaluation.rival]
    plots: list[tuple[str, str, Any]] = []
    if evaluation.ranks:
        plots += [("Recall by depth", "recall", _recall(both)), ("Ranks of the right one", "ranks", _ranks(both))]
    if evaluation.labels:
        plots.append(("Labels", "labels", _labels(both)))
    if evaluation.differences and evaluation.differences[0].low is not None:
        plots.append(("What the second has over the first", "differences", _differences(evaluation)))
    made = {}
    for title, name, figure in plots:
        path = report.with_name(f"{report.stem}-{name}.png")
        figure.savefig(path, dpi=110)
        made[title] = path.name
    return made


def _figure(rows: int, columns: int, height: float) -> tuple[Any, Any]:
    """A figure that belongs to no window, and its axes as an array (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * columns, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
    return figure, axes


def _recall(both: list[Evaluation]) -> Any:
    ways = list(both[0].ranks)
    figure, axes = _figure(1, len(ways), 3.4)
    for way, one in zip(ways, axes[0], strict=True):
        for number, evaluation in enumerate(both):
            ranks = evaluation.ranks[way]
            recall = [100 * np.mean(ranks <= depth) for depth in range(1, _DEPTH + 1)]
            style = "-" if number == 0 else "--"
            one.plot(range(1, _DEPTH + 1), recall, style, color=_COLOURS[number], label=_short(evaluation.space))
        one.set(title=DIRECTIONS[way], xlabel="first k answers", ylabel="right one among them, %", ylim=(0, 101))
        one.legend(loc="lower right")
    return figure


def _ranks(both: list[Evaluation]) -> Any:
    ways = list(both[0].ranks)
    figure, axes = _figure(1, len(ways), 3.4)
    for way, one in zip(ways, axes[0], strict=True):
        edges = _edges(max(int(evaluation.ranks[way].max()) for evaluation in both))
        for number, evaluation in enumerate(both):
            shares = 100 * np.histogram(evaluation.ranks[way], edges)[0] / len(evaluation.ranks[way])
            width = 0.8 / len(both)
            places = np.arange(len(shares)) + (number - (len(both) - 1) / 2) * width
            one.bar(places, shares, width, color=_COLOURS[number], label=_short(evaluation.space))
        names = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
        one.set_xticks(range(len(names)), names, rotation=45, fontsize=8)
        one.set(title=DIRECTIONS[way], xlabel="rank of the right one", ylabel="queries, %")
        one.legend()
    return figure


def _edges(highest: int) -> list[int]:
    """1, 2, 3, 6, 11, 21, 51, 101, ...: narrow where it matters; the last one lies beyond the highest rank."""
    edges, unit = [1, 2, 3, 6], 10
    while edges[-1] <= highest:
        edges += [unit + 1, 2 * unit + 1, 5 * unit + 1]
        unit *= 10
    while len(edges) > 2 and edges[-2] > highest:
        edges.pop()
    return edges


def _labels(both: list[Evaluation]) -> Any:
    """The weakest labels of the first model; all of them where they are few."""
    order = np.argsort([one.average_precision for one in both[0].labels], kind="stable")[:_LABELS]
    figure, axes = _figure(1, 1, 1.2 + 0.22 * len(order) * len(both))
    axis = axes[0, 0]
    height = 0.8 / len(both)
    for number, evaluation in enumerate(both):
        values = [evaluation.labels[row].average_precision for row in order]
        places = np.arange(len(order)) + (number - (len(both) - 1) / 2) * height
        axis.barh(places, values, height, color=_COLOURS[number], label=_short(evaluation.space))
    axis.set_yticks(range(len(order)), [_short(both[0].labels[row].label) for row in order], fontsize=8)
    axis.set(xlabel="average precision, %", xlim=(0, 100), ylim=(len(order) - 0.4, -0.6))
    if len(order) < len(both[0].labels):
        axis.set_title(f"the weakest {len(order)} of {len(both[0].labels)} labels")
    axis.legend(loc="lower right")
    return figure


def _differences(evaluation: Evaluation) -> Any:
    shown = evaluation.differences
    figure, axes = _figure(1, 1, 1.2 + 0.28 * len(shown))
    axis = axes[0, 0]
    for row, one in enumerate(shown):
        assert one.low is not None
        assert one.high is not None
        axis.plot([one.low, one.high], [row, row], color=_COLOURS[0], linewidth=2)
        axis.plot(
            [one.value], [row], "o", color=_COLOURS[0] if one.significant else "white", markeredgecolor=_COLOURS[0]
        )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(shown)), [f"{one.direction} {one.name}" for one in shown])
    axis.invert_yaxis()
    axis.set(xlabel="points, with 95 % intervals; filled: p < 0.05")
    return figure


def _short(text: str) -> str:
    """A name that fits a legend and is not taken for mathematics."""
    shown = text if len(text) <= 32 else f"...{text[-29:]}"
    return shown.replace("$", r"\$")
