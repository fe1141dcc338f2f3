"""Our own vision transformer, small enough for two cores.

In: pixels (n, side, side, 3) uint8. Out: `Features`: the state of the class token, and those of the patches.
(Dosovitskiy et al. 2021, arXiv 2010.11929)

`patchify`, `patches`, `encode` and `states` are its steps, for those who hide patches or read single layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD, Block, PatchEmbedding, start
from mmsearch.nn.towers.tower import Tower, stages_of


class ViT(Tower):
    """Patch embedding, class token, learned positions, `depth` blocks, norm. width: of all states."""

    def __init__(
        self, side: int = 64, patch: int = 8, width: int = 192, depth: int = 6, heads: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.side, self.patch, self.width = side, patch, width
        self.embedding = PatchEmbedding(side, patch, width)
        self.grid = self.embedding.grid
        self.class_token = nn.Parameter(torch.randn(width) * START_STD)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(start)

    def forward(self, pixels: Tensor) -> Features:
        return self.encode(self.patches(pixels))

    def patchify(self, pixels: Tensor) -> Tensor:
        """(n, side, side, 3) uint8 -> (n, p, patch * patch * 3) float32 in [-1, 1], p = grid^2, row by row."""
        return self.embedding.patchify(pixels)

    def patches(self, pixels: Tensor) -> Tensor:
        """(n, side, side, 3) uint8 -> (n, p, width): embedded, with their positions, without the class token."""
        made: Tensor = self.embedding(pixels)
        return made

    def states(self, patches: Tensor) -> list[Tensor]:
        """(n, k, width), any k of the patches -> (n, k + 1, width) after each block, the class token first."""
        x = torch.cat([self.class_token.expand(patches.shape[0], 1, -1), patches], 1)  # (n, k + 1, width)
        made = []
        for block in self.blocks:
            x = block(x)
            made.append(x)
        return made

    def encode(self, patches: Tensor) -> Features:
        """(n, k, width), any k of the patches -> pooled (n, width), tokens (n, k, width), behind the last norm."""
        x = self.norm(self.states(patches)[-1])
        return Features(pooled=x[:, 0], tokens=x[:, 1:])

    def stages(self) -> list[nn.Module]:
        return stages_of(self.embedding, self.blocks, self.norm)
