"""A loss, and a price for moving what should stay: fine-tuning that does not forget.

    loss(outputs) + weight x mean over anchors of |f(x) - x|^2, for each adapter f

In: outputs for the inner objective; anchors, vectors of everyday texts, that adapters should leave where they are. Out:
one loss. Chooses directions that the new pictures need and the anchors do not (learning without forgetting: Li & Hoiem
2016, arXiv 1606.09282; starting point as reference: Li, Grandvalet, Davoine 2018, arXiv 1802.01483).
Relations: on top of any other objective; `interpolate` (WiSE-FT) pulls back all directions alike instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmsearch.nn.features import unit
from mmsearch.nn.heads import Adapter
from mmsearch.training.outputs import Outputs


class Anchored(nn.Module):
    """inner: the objective. adapters: of the learner, whose parameters they stay. anchors (m, d): unit length."""

    def __init__(self, inner: nn.Module, adapters: Sequence[Adapter], anchors: Tensor, weight: float) -> None:
        super().__init__()
        self.inner, self.weight = inner, weight
        self._adapters = tuple(adapters)  # no submodules: they are trained as the learner's
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, outputs: Outputs) -> Tensor:
        anchors = self.get_buffer("anchors")
        moved = [(unit(anchors + adapter.line(anchors)) - anchors).square().sum(1).mean() for adapter in self._adapters]
        loss: Tensor = self.inner(outputs) + self.weight * sum(moved)
        return loss
