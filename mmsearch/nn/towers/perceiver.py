"""A tower whose cost hardly grows with the picture: few learned latents look at many small patches.

In: pixels (n, side, side, 3) uint8. Out: `Features`: the mean of the latents, and the latents.
(Jaegle et al. 2021, arXiv 2103.03206; learned positions in place of Fourier features)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD, Block, PatchEmbedding, start
from mmsearch.nn.towers.tower import Tower, stages_of


class Perceiver(Tower):
    """In each of `rounds`, `latents` states look at all patches, then `depth` blocks work among the latents. All
    rounds share their weights, as in the paper. patch: 1 looks at single pixels."""

    def __init__(
        self,
        side: int = 64,
        patch: int = 4,
        width: int = 192,
        latents: int = 32,
        depth: int = 3,
        heads: int = 3,
        rounds: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.side, self.width, self.rounds = side, width, rounds
        self.embedding = PatchEmbedding(side, patch, width)
        self.latents = nn.Parameter(torch.randn(latents, width) * START_STD)
        self.look = Block(width, heads, dropout, context_width=width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(start)

    def forward(self, pixels: Tensor) -> Features:
        patches = self.embedding(pixels)  # (n, p, width)
        x = self.latents.expand(patches.shape[0], -1, -1)  # (n, latents, width)
        for _ in range(self.rounds):
            x = self.look(x, context=patches)
            for block in self.blocks:
                x = block(x)
        x = self.norm(x)
        return Features(pooled=x.mean(1), tokens=x)

    def stages(self) -> list[nn.Module]:
        return stages_of(self.embedding, self.look, self.blocks, self.norm)
