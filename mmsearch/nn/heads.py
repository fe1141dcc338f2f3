"""From a tower's rows into the shared space.

In: (n, width) pooled rows. Out: (n, out). Linear heads are CLIP's; the deeper one is for locked towers; an adapter
moves vectors within a space that is there already.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.nn.features import unit


class LinearHead(nn.Module):
    """A matrix, without a bias: (n, width) -> (n, out). Starts at a length that keeps variances (Radford et al.)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.line = nn.Linear(width, out, bias=False)
        nn.init.normal_(self.line.weight, std=width**-0.5)

    def forward(self, pooled: Tensor) -> Tensor:
        rows: Tensor = self.line(pooled)
        return rows


class DeepHead(nn.Module):
    """A linear map plus a two-layer one, on rows of one length: (n, width) -> (n, out). Heavy dropout, as it stands on
    locked towers, where there is little to learn from. roots: signed square roots first, so that few strong
    features do not drown the rest (Perronnin, Sanchez, Mensink 2010)."""

    def __init__(self, width: int, out: int, hidden: int = 1024, dropout: float = 0.5, roots: bool = False) -> None:
        super().__init__()
        self.line = nn.Linear(width, out)
        self.inner = nn.Linear(width, hidden)
        self.more = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(dropout)
        self.roots = roots

    def forward(self, pooled: Tensor) -> Tensor:
        x = pooled.sign() * pooled.abs().sqrt() if self.roots else pooled
        x = unit(x) * math.sqrt(x.shape[-1])
        inner = F.gelu(self.inner(self.dropout(x)))
        rows: Tensor = self.line(x) + self.more(self.dropout(inner))
        return rows


class Adapter(nn.Module):
    """x + x A + a: (n, width) -> (n, width). Starts as the identity (Gao et al. 2021, arXiv 2110.04544, without their
    bottleneck: few pictures and strong weight decay keep A small)."""

    def __init__(self, width: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.line = nn.Linear(width, width)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        moved: Tensor = vectors + self.line(self.dropout(vectors))
        return moved
