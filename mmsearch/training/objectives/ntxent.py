"""NT-Xent (SimCLR): two views of each picture find each other among all 2n views. No texts.

    loss = mean over the 2n views a of  - 1/|P(a)| sum_{p in P(a)} log( exp(s_ap / t) / sum_{b != a} exp(s_ab / t) )

s_ab: cosine of two views; t: temperature, fixed; P(a): the other view of the same picture, and, where groups say so,
all views of pictures that belong together (Chen et al. 2020, arXiv 2002.05709; several positives: Khosla et al. 2020,
arXiv 2004.11362).

Which one to choose: to pre-train an image tower on pictures without texts; it lives on strong augmentation and large
batches. `mae` and `data2vec` need neither. With labels as groups it is supervised contrastive learning. Its learner is
`two_views`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsearch.errors import UsageError
from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pooled, together
from mmsearch.training.outputs import Outputs


class NTXent(nn.Module):
    """temperature: fixed, as published for ImageNet; above 0."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"A temperature of {temperature} cannot be: it divides the cosines; choose one above 0.")
        self.temperature = temperature

    def forward(self, outputs: Outputs) -> Tensor:
        first, second = pooled(outputs.image, "image", self), pooled(outputs.second, "second", self)
        views = torch.cat([first, second])  # (2n, d)
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        positive = together(outputs.groups, first).tile(2, 2).masked_fill(itself, 0)  # (2n, 2n)
        logits = views @ views.T / self.temperature
        return one_way(logits.masked_fill(itself, torch.finfo(logits.dtype).min), positive)
