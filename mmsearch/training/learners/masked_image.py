"""The masked autoencoder: an image tower sees a few patches, and a small decoder paints the others.

In: `Batch` with images (n, side, side, 3) uint8. Out: image.tokens (n, p, patch * patch * 3), painted; targets.tokens,
the same of the picture itself, in [-1, 1]; targets.mask (n, p), True where hidden.
(He et al. 2022, arXiv 2111.06377; the decoder's positions are learned as the tower's are)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD, Block, start
from mmsearch.nn.towers.vit import ViT
from mmsearch.training.batch import Batch
from mmsearch.training.learners.hiding import how_many, random_order
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs


class Decoder(nn.Module):
    """What the tower saw (n, k, in_width) and at which places -> patches (n, p, out). Thrown away after training."""

    def __init__(self, in_width: int, patches: int, out: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(in_width, width)
        self.unseen = nn.Parameter(torch.randn(width) * START_STD)
        self.positions = nn.Parameter(torch.randn(patches, width) * START_STD)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))
        self.apply(start)

    def forward(self, pooled: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
        """pooled (n, in_width); tokens (n, k, in_width) of the patches order[:, :k]; order (n, p) -> (n, p, out)."""
        seen = self.enter(tokens)  # (n, k, width)
        unseen = self.unseen.to(seen).expand(len(seen), order.shape[1] - seen.shape[1], -1)
        x = in_place(torch.cat([seen, unseen], 1), order) + self.positions  # (n, p, width)
        x = self.blocks(torch.cat([self.enter(pooled)[:, None], x], 1))  # (n, 1 + p, width), the class token first
        painted: Tensor = self.leave(x[:, 1:])
        return painted


class MaskedImage(Learner):
    """mask_ratio: share of hidden patches. decoder_width, decoder_depth, decoder_heads: of the decoder."""

    def __init__(
        self,
        tower: ViT,
        mask_ratio: float = 0.75,
        decoder_width: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
    ) -> None:
        super().__init__()
        self.tower = tower
        patches, out = tower.grid**2, tower.patch**2 * 3
        self.kept = patches - how_many(patches, mask_ratio)
        self.decoder = Decoder(tower.width, patches, out, decoder_width, decoder_depth, decoder_heads)

    def forward(self, batch: Batch) -> Outputs:
        pixels = self.need(batch.images, "images")
        patches = self.tower.patches(pixels)  # (n, p, width)
        order = random_order(len(patches), patches.shape[1], patches.device)  # (n, p)
        kept = order[:, : self.kept]  # (n, k)
        seen = self.tower.encode(patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2])))
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)
        painted = self.decoder(self.need(seen.pooled, "pooled"), self.need(seen.tokens, "tokens"), order)
        return Outputs(
            image=Features(tokens=painted),
            targets=Features(tokens=self.tower.patchify(pixels), mask=hidden),
            groups=batch.groups,
        )


def in_place(rows: Tensor, order: Tensor) -> Tensor:
    """rows (n, p, w), of which row k lies at place order[:, k] -> (n, p, w) by place.

    rows a b c, order 2 0 1 -> b c a.
    """
    return rows.gather(1, order.argsort(1)[..., None].expand(-1, -1, rows.shape[2]))
