"""ALIGN: the normalised softmax both ways, softened for pairs of which many are wrong.

    loss = 1/2 mean_i CE(softmax_j(s_ij / t), Q_i) + 1/2 mean_j CE(softmax_i(s_ij / t), Q_j)
    Q_i  = (1 - e) P_i + e / n

s_ij: cosine of picture i and text j; t: temperature, learnt; P_i: shared evenly by all texts that belong to picture i;
e: smoothing (Jia et al. 2021, arXiv 2102.05918).

Which one to choose: for captions from the web, file names, or tags, where a pair may be no pair: smoothing keeps the
encoder from being certain about it. With smoothing 0 this is `clip`.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs


class Align(nn.Module):
    """smoothing: share of the target that all texts of the batch get, 0 to 1. temperature: where it starts (the paper
    starts at 1, from where short trainings do not arrive)."""

    def __init__(self, temperature: float = 0.07, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= smoothing <= 1:
            raise UsageError(f"A smoothing of {smoothing} cannot be: it is a share of the target; choose 0 to 1.")
        self.temperature, self.smoothing = Temperature(temperature), smoothing

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        logits = self.temperature() * images @ texts.T  # (n, n)
        return (one_way(logits, self._soft(positive)) + one_way(logits.T, self._soft(positive.T))) / 2

    def _soft(self, positive: Tensor) -> Tensor:
        """(n, n) -> (n, n): rows that sum to 1."""
        return (1 - self.smoothing) * positive / positive.sum(1, keepdim=True) + self.smoothing / positive.shape[1]
