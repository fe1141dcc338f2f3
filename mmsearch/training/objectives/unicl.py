"""UniCL, the objective of Florence: labelled pictures and captioned ones in one batch; all pairs of one label are
positive.

    loss  = L_i2t + L_t2i
    L_i2t = - mean_i 1/|P(i)| sum_{k in P(i)} log( exp(s_ik / t) / sum_j exp(s_ij / t) )
    L_t2i = - mean_j 1/|P(j)| sum_{k in P(j)} log( exp(s_kj / t) / sum_i exp(s_ij / t) )

s_ij: cosine of picture i and text j; t: temperature, learnt; P(i): all k with the label of i, where a caption of its
own is a label of its own (Yang et al. 2022, arXiv 2204.03610; Yuan et al. 2021, arXiv 2111.11432; they add up over
the batch what we average).

Which one to choose: with labels, and names of classes as texts. Our `clip` shares its target between several
positives in the same way, so that here the two differ by the factor 2 alone (the directions are added up, not
averaged), which AdamW does not see; what UniCL brought is that plain CLIP pushes the other pictures of a label away.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.training.objectives.infonce import one_way
from mmsearch.training.objectives.pairs import pairs
from mmsearch.training.objectives.temperature import Temperature
from mmsearch.training.outputs import Outputs


class UniCL(nn.Module):
    """temperature: where it starts."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = Temperature(temperature)

    def forward(self, outputs: Outputs) -> Tensor:
        images, texts, positive = pairs(outputs, self)
        logits = self.temperature() * images @ texts.T  # (n, n)
        return one_way(logits, positive) + one_way(logits.T, positive.T)
