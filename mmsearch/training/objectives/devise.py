"""DeViSE: the own text of a picture scores higher than every other, by a margin. One direction, all negatives.

    loss = mean_i sum_j [m + s_ij - s_ii]+

s_ij: cosine of picture i and text j, m: margin; j runs over the texts that do not belong to picture i (Frome et al.
2013, NeurIPS; they map pictures into the space of word vectors).

Which one to choose: this one where texts are few and fixed, as the names of classes are, or where only the pictures'
side is trained. For retrieval both ways, `vse` with `sum` is this one and its mirror image.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.training.objectives.hinge import hinges
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.outputs import Outputs


class DeViSE(nn.Module):
    """margin: in cosine, as published."""

    def __init__(self, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        scores = images @ texts.T  # (n, n)
        return hinges(scores, scores.diagonal(), positive, self.margin).sum(1).mean()
