"""Masked autoencoding: what was hidden of a picture is painted from the patches that were not.

    loss = mean over hidden patches p of  | x_p - (y_p - mean(y_p)) / sqrt(var(y_p) + 1e-6) |^2 / (numbers of a patch)

y_p: the pixels of patch p; x_p: what the learner paints there (He et al. 2022, arXiv 2111.06377, with the targets
normalised patch by patch).

Which one to choose: to pre-train an image tower on pictures without texts, cheaply: only a quarter of the patches runs
through it. Its learner is `masked_image`. `data2vec` predicts states instead of pixels; `ntxent` compares views.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.training.objectives.hidden import hidden
from mmsearch.training.outputs import Outputs


class MaskedAutoencoding(nn.Module):
    """image.tokens (n, p, w): painted; targets.tokens (n, p, w): true; targets.mask (n, p): True where hidden."""

    def __init__(self) -> None:  # a recipe reads here that nothing can be set
        super().__init__()

    def forward(self, outputs: Outputs) -> Tensor:
        painted, true = hidden(outputs.image, "image", outputs, self)  # (k, w) each
        variance, mean = true.var(1, keepdim=True), true.mean(1, keepdim=True)
        return (painted - (true - mean) / (variance + 1e-6).sqrt()).square().mean()
