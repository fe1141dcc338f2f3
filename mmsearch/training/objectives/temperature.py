"""How sharply cosines count.

Out: the factor of the cosines before a softmax or sigmoid, 1 / temperature, learnt in its logarithm and at most 100
(Radford et al. 2021, arXiv 2103.00020: beyond, training becomes unstable).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError

MOST = 100.0  # times


class Temperature(nn.Module):
    """start: the temperature that learning begins with, above 0. Calling it gives the factor, a scalar."""

    def __init__(self, start: float) -> None:
        super().__init__()
        if not start > 0:
            raise UsageError(f"A temperature of {start} cannot be: it divides the cosines; choose one above 0.")
        self.scale = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self) -> Tensor:
        with torch.no_grad():  # the parameter itself: a clamped value would have no gradient to come back by
            self.scale.clamp_(max=math.log(MOST))
        return self.scale.exp()
