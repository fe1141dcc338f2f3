"""The ranking hinge that triplet losses share: what does not belong must score less than what does, by a margin.

In: scores, the score of what each row owns, and what belongs to it. Out: by how much each other one fails.
"""

from __future__ import annotations

from torch import Tensor


def hinges(scores: Tensor, own: Tensor, positive: Tensor, margin: float) -> Tensor:
    """scores, positive (..., m); own (...) -> (..., m): max(0, margin + score - own score), and 0 where positive is 1.

    scores [[0.9, 0.8], [0.1, 0.7]], own [0.9, 0.7], positive the unit matrix, margin 0.2 -> [[0, 0.1], [0, 0]].
    """
    return (margin + scores - own.unsqueeze(-1)).relu() * (1 - positive)
