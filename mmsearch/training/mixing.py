"""Several sets as one training set, each with its weight.

In: what people write after `--data`: a folder, shards or a collection, with a weight before it where they want one
(`0.5:./b`, as in queries). Out: the sets. Rows are drawn in proportion to the weights, whatever the sizes (order.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsearch.errors import UsageError
from mmsearch.query import text_term
from mmsearch.training.examples import OnProgress, Supervised, read
from mmsearch.training.picture import Wanted


@dataclass(frozen=True, slots=True)
class Weighted:
    """A set, and how many rows are drawn from it, relative to the others."""

    weight: float
    supervised: Supervised


def read_all(
    written: Sequence[str], *, wanted: Wanted = "words", on_progress: OnProgress | None = None
) -> list[Weighted]:
    """All sets. Raises UsageError with the mistakes of all of them, CollectionError."""
    sets: list[Weighted] = []
    wrong: list[str] = []
    for one in written:
        try:
            weight, source = weighted(one)
            sets.append(Weighted(weight, read(source, wanted=wanted, on_progress=on_progress)))
        except UsageError as error:
            wrong.append(str(error))
    if not written:
        wrong.append("No data is named; name a folder, a .tar file or a collection with --data.")
    if wrong:
        raise UsageError(" ".join(wrong))
    return sets


def weighted(written: str) -> tuple[float, str]:
    """`0.5:./b` -> (0.5, "./b"); a path that begins so and exists is meant literally. Raises UsageError."""
    if Path(written).expanduser().exists():
        return 1.0, written
    term = text_term(written)
    return term.weight, term.text or ""
