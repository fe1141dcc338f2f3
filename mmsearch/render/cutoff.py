"""Where relevance ends in a list of answers, and how many come before that."""

from __future__ import annotations

from mmsearch.render.text import count
from mmsearch.types import SearchResult


def summary(result: SearchResult) -> str:
    """`3 relevant of 10 shown`, or how many there are where that cannot be told."""
    if not len(result):
        return "nothing found"
    if result.relevant is None:
        what = "captions" if any(hit.caption is not None for hit in result) else "pictures"
        return count(len(result), what.removesuffix("s"))
    return f"{result.relevant:,} relevant of {len(result):,} shown"


def cut_off(result: SearchResult) -> int | None:
    """How many hits come before the line between what is relevant and what is not. None where no line can divide
    them: not known, all of them on one side, or mixed because something else decides the order as well."""
    likely = [hit.probability for hit in result if hit.probability is not None]
    at = result.relevant
    if at is None or at == len(result) or len(likely) < len(result):
        return None
    return at if at == 0 or min(likely[:at]) >= max(likely[at:]) else None
