"""SigLIP: of every picture and every text of the batch: do they belong together, yes or no?

    loss = - 1/n sum_ij log sigmoid( z_ij (s_ij / t + b) ),   z_ij = 1 where i and j belong together, else -1

s_ij: cosine of picture i and text j; t, b: temperature and bias, learnt. The bias starts low, as nearly all pairs are
negative (Zhai et al. 2023, arXiv 2303.15343).

Which one to choose: for small batches, and where a picture has many right texts: pairs do not compete for one target,
as they do in `clip`. Its scores are probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs


class SigLIP(nn.Module):
    """temperature, bias: where they start, as published (a factor of 10)."""

    def __init__(self, temperature: float = 0.1, bias: float = -10.0) -> None:
        super().__init__()
        self.temperature = Temperature(temperature)
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        logits = self.temperature() * images @ texts.T + self.bias  # (n, n)
        return -F.logsigmoid((2 * positive - 1) * logits).sum() / len(images)
