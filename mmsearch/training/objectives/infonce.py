"""Symmetric InfoNCE with any number of positives a row.

In: n image vectors and n text vectors of unit length, and which of them belong together. Out: one loss.
van den Oord et al. 2018 (arXiv 1807.03748); symmetric as in Radford et al. 2021 (arXiv 2103.00020); several
positives share the target evenly, as in Khosla et al. 2020 (arXiv 2004.11362).

`clip.py` is the same loss for recipes. `InfoNCE` stands apart for the built-in model (tuning.py), which was trained
with it: beyond 100 it cuts the factor alone, so that the parameter gets no gradient; `Temperature` cuts the parameter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class InfoNCE(nn.Module):
    """Owns its temperature: logits are the cosines times `exp(scale)`, learnt, at most 100.

    Two images, two texts, positive = the unit matrix, cosines [[1, 0], [0, 1]], scale 0: the loss is
    -log(e / (e + 1)) = 0.3133.
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, images: Tensor, texts: Tensor, positive: Tensor) -> Tensor:
        """images, texts (n, d) unit length; positive (n, n), 1 where image i and text j belong together, else 0.
        Every image and every text needs a positive."""
        logits = self.scale.exp().clamp(max=100) * images @ texts.T  # (n, n)
        return (one_way(logits, positive) + one_way(logits.T, positive.T)) / 2


def one_way(logits: Tensor, positive: Tensor) -> Tensor:
    """logits (n, m); positive (n, m), weights of what each row should find, at least one above 0 -> the cross entropy
    of the rows' softmax with their target, averaged over the rows."""
    target = positive / positive.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()
