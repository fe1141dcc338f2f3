"""SimCLR's learner: an image tower sees two random views of each picture, and a projection head makes them comparable.

In: `Batch` with images and second (n, side, side, 3) uint8, two views of the same pictures. Out: image.pooled,
second.pooled (n, d), unit length; groups.
(Chen et al. 2020, arXiv 2002.05709: what the loss makes invariant is lost in the head, not in the tower)
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.nn.features import Features, unit
from mmsearch.nn.towers.tower import Tower
from mmsearch.training.batch import Batch
from mmsearch.training.learners.learner import Learner
from mmsearch.training.outputs import Outputs


class TwoViews(Learner):
    """projection_width: of the vectors that are compared; the head is thrown away after training."""

    def __init__(self, tower: Tower, projection_width: int = 128) -> None:
        super().__init__()
        self.tower = tower
        self.project = nn.Sequential(
            nn.Linear(tower.width, tower.width), nn.ReLU(), nn.Linear(tower.width, projection_width)
        )

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(
            image=self._seen(self.need(batch.images, "images")),
            second=self._seen(self.need(batch.second, "second")),
            groups=batch.groups,
        )

    def _seen(self, pixels: Tensor) -> Features:
        pooled = self.need(self.tower(pixels).pooled, "pooled")
        return Features(pooled=unit(self.project(pooled)))
