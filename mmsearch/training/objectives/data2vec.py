"""data2vec: at the hidden patches, what the momentum average of the tower sees there in the whole picture.

    loss = mean over hidden patches and numbers of  smooth_l1(x - y, beta)
    smooth_l1(d, beta) = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2

x: what the learner says; y: the teacher's states after its last blocks, each layer-normalised, averaged (Baevski et
al. 2022, arXiv 2202.03555).

Which one to choose: to pre-train an image tower on pictures without texts where `mae` has shown that it can be done
and time allows more: targets are what a tower sees rather than pixels, at twice the price of a step. Its learner is
`data2vec`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mmsearch.errors import UsageError
from mmsearch.training.objectives.hidden import hidden
from mmsearch.training.outputs import Outputs


class Data2Vec(nn.Module):
    """image.tokens (n, p, w): said; targets.tokens (n, p, w): the teacher's; targets.mask (n, p): True where hidden.
    beta: up to which difference the loss is a square; 2 as published for pictures."""

    def __init__(self, beta: float = 2.0) -> None:
        super().__init__()
        if beta < 0:
            raise UsageError(f"A beta of {beta} cannot be: it is a difference; choose 0 or more.")
        self.beta = beta

    def forward(self, outputs: Outputs) -> Tensor:
        said, seen = hidden(outputs.image, "image", outputs, self)  # (k, w) each
        return F.smooth_l1_loss(said, seen.detach(), beta=self.beta)
