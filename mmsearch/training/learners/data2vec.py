"""data2vec for pictures: a tower that sees a part of a picture says what its own momentum average sees in all of it.

In: `Batch` with images (n, side, side, 3) uint8. Out: image.tokens (n, p, width), said; targets.tokens, the average's
states behind its last blocks, each layer-normalised, averaged; targets.mask (n, p), True where hidden.
(Baevski et al. 2022, arXiv 2202.03555; patches are hidden one by one, not in blocks)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.errors import UsageError
from mmsearch.nn.features import Features
from mmsearch.nn.layers import START_STD
from mmsearch.nn.towers.vit import ViT
from mmsearch.training.batch import Batch
from mmsearch.training.learners.average import follow, untrained_copy
from mmsearch.training.learners.hiding import how_many, random_order
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs

TOP_LAYERS = 3  # blocks whose states are averaged, the last ones


class Data2Vec(Learner):
    """momentum: how much of the average stays at each step. top_layers: the blocks whose states are averaged, the
    last ones. mask_ratio: share of hidden patches."""

    def __init__(
        self, tower: ViT, momentum: float = 0.999, top_layers: int = TOP_LAYERS, mask_ratio: float = 0.6
    ) -> None:
        super().__init__()
        if not 1 <= top_layers <= len(tower.blocks):
            raise UsageError(f"top_layers={top_layers} of a tower with {len(tower.blocks)} blocks; choose 1 to that.")
        self.tower, self.momentum, self.top_layers = tower, momentum, top_layers
        self.hidden = how_many(tower.grid**2, mask_ratio)
        self.unseen = nn.Parameter(torch.randn(tower.width) * START_STD)
        self.say = nn.Linear(tower.width, tower.width)
        self.teacher = untrained_copy(tower)

    def forward(self, batch: Batch) -> Outputs:
        pixels = self.need(batch.images, "images")
        patches = self.tower.patches(pixels)  # (n, p, width)
        order = random_order(len(patches), patches.shape[1], patches.device)  # (n, p)
        hidden = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, : self.hidden], True)
        unseen = self.unseen + self.tower.embedding.positions  # (p, width): where it is hidden stays known
        seen = self.tower.encode(torch.where(hidden[..., None], unseen.to(patches), patches))
        return Outputs(
            image=Features(tokens=self.say(self.need(seen.tokens, "tokens"))),
            targets=Features(tokens=self._taught(pixels), mask=hidden),
            groups=batch.groups,
        )

    @torch.no_grad()
    def _taught(self, pixels: Tensor) -> Tensor:
        """(n, side, side, 3) -> (n, p, width)."""
        self.teacher.eval()  # `train` of the learner reaches it too; a teacher drops nothing out
        states = self.teacher.states(self.teacher.patches(pixels))[-self.top_layers :]
        normal = [F.layer_norm(state[:, 1:].float(), state.shape[2:]) for state in states]
        return torch.stack(normal).mean(0)

    def after_step(self) -> None:
        follow(self.teacher, self.tower, self.momentum)
